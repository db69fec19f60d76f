"""What people may do: each role may do what those before it may, and more.

viewer    sees every page, exports what is flagged, asks `explain`
reviewer  decides, takes decisions back, assigns, comments, and mutes
admin     starts audits and drills, downloads releases, writes new versions of sentinel files,
          sees who may come in
"""

from typing import Literal, get_args

Role = Literal["viewer", "reviewer", "admin"]

ROLES: tuple[Role, ...] = get_args(Role)
# What each role may do beyond those before it, as pages say it.
DUTIES: dict[Role, str] = {
    "viewer": "sees every page, exports flagged rows, asks for explanations",
    "reviewer": "decides on rows, takes decisions back, assigns groups, comments, mutes messages",
    "admin": "starts audits and drills, downloads releases, writes sentinel files, "
    "sees who may come in",
}
# Forms that change nothing of the audit.
_FORMS_OF_VIEWERS = {"/login", "/logout", "/explain", "/account/password"}
_FORMS_OF_REVIEWERS = "/triage/"
_PAGES_OF_ADMINS = {"/release/files.zip", "/release/manifest.json"}


def find_needed_role(path: str, changes: bool) -> Role:
    """The least role that may ask for a page, or send a form (`changes`) to it."""
    if changes and path in _FORMS_OF_VIEWERS:
        return "viewer"
    if changes and path.startswith(_FORMS_OF_REVIEWERS):
        return "reviewer"
    # a form that nobody thought of here is no form for everybody
    if changes or path in _PAGES_OF_ADMINS:
        return "admin"
    return "viewer"


def may_act_as(role: Role, needed: Role) -> bool:
    """Whether somebody of `role` may do what takes `needed`."""
    return ROLES.index(role) >= ROLES.index(needed)
