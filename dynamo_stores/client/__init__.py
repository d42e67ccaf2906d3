"""The low-level client: DynamoDB's operations on plain values, without models."""

from .client import DynamoDBClient, get_dynamodb_client
from .operations import Check, Delete, Get, Put, Update
from .pages import Listing, Page
from .trees import Tree, TreeMetadata, TreeNode

__all__ = [
    "Check",
    "Delete",
    "DynamoDBClient",
    "Get",
    "Listing",
    "Page",
    "Put",
    "Tree",
    "TreeMetadata",
    "TreeNode",
    "Update",
    "get_dynamodb_client",
]
