"""Pages on which users change their password, or set a new one by a link in an e-mail."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.views import (
    PasswordChangeView,
    PasswordResetConfirmView,
    PasswordResetView,
)
from django.http import HttpResponse
from django.urls import reverse_lazy
from django.utils.decorators import method_decorator

from ..limits import limit_password_changes, limit_password_resets


class _Form:
    """A view of a form: status 400 if it has errors, and a sentence if it has not."""

    done = ""

    def form_invalid(self: Any, form: Any) -> HttpResponse:
        """Show the errors."""
        response: HttpResponse = self.render_to_response(
            self.get_context_data(form=form), status=400
        )
        return response

    def form_valid(self: Any, form: Any) -> HttpResponse:
        """Do it, and say so on the next page."""
        response: HttpResponse = super().form_valid(form)  # type: ignore[misc]
        messages.success(self.request, self.done)
        return response


@method_decorator([login_required, limit_password_changes], name="dispatch")
class ChangePassword(_Form, PasswordChangeView):
    """One's own password, to be changed. It ends the other sessions of the user."""

    template_name = "forum/change_password.html"
    success_url = reverse_lazy("forum:account")
    done = "Your password is changed. Other browsers are logged out."


@method_decorator(limit_password_resets, name="dispatch")
class ResetPassword(_Form, PasswordResetView):
    """Sends a link to the address of an account; the answer does not say whether there is one."""

    template_name = "forum/reset_password.html"
    subject_template_name = "forum/emails/reset_password_subject.txt"
    email_template_name = "forum/emails/reset_password.txt"
    success_url = reverse_lazy("forum:login")
    done = "If an account has this address, an e-mail with a link is on its way to it."


class SetPassword(_Form, PasswordResetConfirmView):
    """A new password, by the link. It ends all sessions of the user."""

    template_name = "forum/set_password.html"
    success_url = reverse_lazy("forum:login")
    done = "Your password is changed. Log in with the new one."
