//! Who asks: what an identity service vouches for, of one request.

use std::collections::BTreeSet;

/// What a caller's token is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// One project: the only scope that images are managed in.
    Project,
    /// A domain.
    Domain,
    /// The whole deployment.
    System,
    /// Nothing: a user without a project.
    Unscoped,
}

/// The caller of one request. Its roles, and those of a service that speaks on its behalf, are in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The user's id.
    pub user: Option<String>,
    /// The project's id: what images are owned by.
    pub project: Option<String>,
    /// What the token is good for.
    pub scope: Scope,
    /// The user's roles in the project.
    roles: BTreeSet<String>,
    /// The roles of the service that passes the request on, if one does.
    service_roles: BTreeSet<String>,
}

impl Caller {
    /// A caller with a project. Roles are compared in lower case.
    pub fn new<R: AsRef<str>>(
        user: &str,
        project: &str,
        roles: impl IntoIterator<Item = R>,
    ) -> Self {
        Self {
            user: Some(user.to_owned()),
            project: Some(project.to_owned()),
            scope: Scope::Project,
            roles: lower_case(roles),
            service_roles: BTreeSet::new(),
        }
    }

    /// A caller who said nothing of itself: without user, project and roles.
    pub fn anonymous() -> Self {
        Self {
            user: None,
            project: None,
            scope: Scope::Unscoped,
            roles: BTreeSet::new(),
            service_roles: BTreeSet::new(),
        }
    }

    /// The same caller with another scope; only [`Scope::Project`] has a project.
    #[must_use]
    pub fn with_scope(mut self, scope: Scope) -> Self {
        self.scope = scope;
        if scope != Scope::Project {
            self.project = None;
        }
        self
    }

    /// The same caller, its request passed on by a service with these roles.
    #[must_use]
    pub fn with_service_roles<R: AsRef<str>>(mut self, roles: impl IntoIterator<Item = R>) -> Self {
        self.service_roles = lower_case(roles);
        self
    }

    /// Whether the user has the role, whatever its case.
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.contains(&role.to_lowercase())
    }

    /// The user's roles, in lower case.
    pub fn roles(&self) -> impl Iterator<Item = &str> {
        self.roles.iter().map(String::as_str)
    }

    /// The roles of the service that passes the request on, in lower case.
    pub fn service_roles(&self) -> impl Iterator<Item = &str> {
        self.service_roles.iter().map(String::as_str)
    }

    /// Whether the caller's project is the one given; a caller without a project is of none.
    pub fn is_of(&self, project: Option<&str>) -> bool {
        self.project.is_some() && self.project.as_deref() == project
    }
}

fn lower_case<R: AsRef<str>>(roles: impl IntoIterator<Item = R>) -> BTreeSet<String> {
    roles
        .into_iter()
        .map(|role| role.as_ref().trim().to_lowercase())
        .filter(|role| !role.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_compared_in_lower_case() {
        let caller = Caller::new("u", "p", ["Member", " "]).with_service_roles(["SERVICE"]);
        assert!(
            caller.has_role("member") && caller.has_role("MEMBER") && !caller.has_role("service")
        );
        assert_eq!(caller.service_roles().collect::<Vec<_>>(), ["service"]);
        assert_eq!(caller.roles().count(), 1);
    }

    #[test]
    fn callers_without_a_project_are_of_none() {
        assert!(!Caller::anonymous().is_of(None));
        let system = Caller::new("u", "p", ["admin"]).with_scope(Scope::System);
        assert!(!system.is_of(Some("p")) && !system.is_of(None));
    }
}
