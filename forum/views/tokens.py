"""The page on which users make and delete their tokens for the API."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from ..api.tokens import TokenExists, make_token
from ..forms import TokenForm
from ..sql import Token
from .answers import limit_editing, page, show_form

MAX_TOKENS = 20


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
@login_required
@limit_editing
@page
def tokens(request: HttpRequest) -> HttpResponse:
    """One's own tokens, and a form for a new one, whose text is shown once."""
    own = Token.objects.filter(user=request.user.pk).order_by("-created_at", "-pk")
    form, made = TokenForm(request.POST if request.method == "POST" else None), ""
    if form.is_valid():
        if own.count() >= MAX_TOKENS:
            form.add_error(None, f"You have {MAX_TOKENS} tokens. Delete one that you do not use.")
        else:
            try:
                made = make_token(request.user, form.cleaned_data["name"])
                form = TokenForm()
            except TokenExists:
                form.add_error("name", "You have a token with this name. Choose another one.")
    return show_form(request, "forum/tokens.html", form, tokens=own, made=made)


@require_POST
@login_required
@limit_editing
@page
def delete_token(request: HttpRequest, token_id: int) -> HttpResponse:
    """Delete one's own token."""
    Token.objects.filter(user=request.user.pk, pk=token_id).delete()
    messages.success(request, "The token is deleted. Programs that use it are refused.")
    return redirect("forum:tokens")
