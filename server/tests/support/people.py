"""Who asks. Four projects: `alpha`, whose images are looked at; `beta`, which they are shared with; `gamma`, a stranger; and
that of the operators."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Person:
    """A user with a static token."""

    name: str
    project: str
    roles: tuple

    @property
    def token(self):
        """The token, as the client sends it."""
        return f"{self.name}-token-0123456789abcdef"


PEOPLE = {
    person.name: person
    for person in [
        Person("admin", "operators", ("admin", "member", "reader")),
        Person("alice", "alpha", ("member", "reader")),
        Person("alan", "alpha", ("reader",)),
        Person("anna", "alpha", ()),
        Person("bob", "beta", ("member", "reader")),
        Person("bella", "beta", ("reader",)),
        Person("carol", "gamma", ("member", "reader")),
        Person("service", "services", ("service",)),
    ]
}
