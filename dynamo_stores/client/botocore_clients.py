"""botocore's clients whose requests go over the connection of an alias."""

from __future__ import annotations

import copy
from typing import Any

from boto3.dynamodb.transform import TransformationInjector
from botocore.exceptions import BotoCoreError, ClientError

from ..calls.account import get_account
from ..calls.client import make_client
from ..calls.connection import get_connection
from ..conf import get_config
from ..exceptions import client_error, code_of


def make_botocore_client(using: str) -> Any:
    """Return a botocore client; its requests are those of PynamoDB's models of the alias."""
    client = _make(using)

    def call(operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        return _send(client, using, operation, dict(parameters))

    client._make_api_call = call
    return client


def make_document_client(using: str) -> Any:
    """Return such a client with plain values, as a table resource of boto3 has them."""
    client = _make(using)
    injector = TransformationInjector()

    def call(operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        model = client.meta.service_model.operation_model(operation)
        # The transformations change their argument.
        parameters = copy.deepcopy(parameters)
        injector.inject_condition_expressions(parameters, model)
        injector.inject_attribute_value_input(parameters, model)
        answer = _send(client, using, operation, parameters)
        injector.inject_attribute_value_output(answer, model)
        return answer

    client._make_api_call = call
    return client


def _make(using: str) -> Any:
    try:
        return make_client(get_config(using), get_account(using))
    except BotoCoreError as exc:
        error = client_error(exc, using)
        if error is None:
            raise
        raise error from exc


def _send(client: Any, using: str, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
    try:
        answer = get_connection(using).dispatch(operation, parameters)
    except ClientError as exc:
        # The classes of ``client.exceptions`` are those of this client.
        kind = client.exceptions.from_code(code_of(exc))
        raise kind(exc.response, operation) from exc
    answer.setdefault("ResponseMetadata", {"HTTPStatusCode": 200, "RetryAttempts": 0})
    return answer
