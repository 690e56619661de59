//! Headers in which a proxy says who asks: believed from addresses of the configuration, from no one else.

use tegula_domain::{Caller, Scope};

use crate::error::{Flaw, IdentityError};
use crate::network::Network;
use crate::presented::Presented;

/// Believes what Keystone's middleware, or a proxy that does the same, puts into requests: `X-Identity-Status`,
/// `X-User-Id`, `X-Project-Id`, `X-Domain-Id`, `OpenStack-System-Scope`, `X-Roles`, and `X-Service-Roles` with
/// `X-Service-Identity-Status`.
///
/// The proxy must remove these headers from what it passes on: here they are taken to be its own.
#[derive(Debug, Clone)]
pub struct TrustedHeaders {
    peers: Vec<Network>,
}

impl TrustedHeaders {
    /// Believes requests that come from these addresses.
    pub fn from_peers(peers: Vec<Network>) -> Self {
        Self { peers }
    }

    /// Who asks, according to a proxy; `None` if the request is not from one, or says nothing.
    ///
    /// # Errors
    /// [`IdentityError::Invalid`] if the proxy says that the caller's token is not good, or does not say who it is.
    pub(crate) fn identify(
        &self,
        presented: &Presented<'_>,
    ) -> Result<Option<Caller>, IdentityError> {
        let peer = presented.peer.ip();
        if !self.peers.iter().any(|network| network.contains(peer)) {
            return Ok(None);
        }
        let Some(status) = presented.header("x-identity-status")? else {
            return Ok(None);
        };
        if status != "Confirmed" {
            return Err(IdentityError::Invalid(Flaw::Unconfirmed));
        }
        let caller = caller(presented)?;
        let service_roles = service_roles(presented)?;
        Ok(Some(caller.with_service_roles(service_roles)))
    }
}

fn caller(presented: &Presented<'_>) -> Result<Caller, IdentityError> {
    let user = presented
        .header("x-user-id")?
        .ok_or(IdentityError::Invalid(Flaw::Incomplete))?;
    let roles = comma_separated(presented.header("x-roles")?);
    let project = match presented.header("x-project-id")? {
        Some(project) => Some(project),
        None => presented.header("x-tenant-id")?,
    };
    if let Some(project) = project {
        return Ok(Caller::new(user, project, roles));
    }
    let scope = if presented.header("openstack-system-scope")? == Some("all") {
        Scope::System
    } else if presented.header("x-domain-id")?.is_some() {
        Scope::Domain
    } else {
        Scope::Unscoped
    };
    Ok(Caller::new(user, "", roles).with_scope(scope))
}

fn service_roles<'a>(presented: &Presented<'a>) -> Result<Vec<&'a str>, IdentityError> {
    match presented.header("x-service-identity-status")? {
        Some("Confirmed") => Ok(comma_separated(presented.header("x-service-roles")?)),
        Some(_) => Err(IdentityError::Invalid(Flaw::ServiceToken)),
        None => Ok(Vec::new()),
    }
}

fn comma_separated(list: Option<&str>) -> Vec<&str> {
    list.unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, Method};

    use super::*;

    const PROXY: &str = "10.0.0.7:4000";

    fn identify(peer: &str, headers: &[(&str, &str)]) -> Result<Option<Caller>, IdentityError> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        let presented = Presented {
            method: &Method::GET,
            path: "/v2/images",
            headers: &map,
            peer: peer.parse().unwrap(),
        };
        TrustedHeaders::from_peers(vec!["10.0.0.0/24".parse().unwrap()]).identify(&presented)
    }

    const ALICE: [(&str, &str); 4] = [
        ("X-Identity-Status", "Confirmed"),
        ("X-User-Id", "alice"),
        ("X-Project-Id", "p1"),
        ("X-Roles", "Member, reader,"),
    ];

    #[test]
    fn a_proxy_of_the_configuration_says_who_asks() {
        assert_eq!(
            identify(PROXY, &ALICE),
            Ok(Some(Caller::new("alice", "p1", ["member", "reader"])))
        );
        let mapped = "[::ffff:10.0.0.7]:4000";
        assert!(
            identify(mapped, &ALICE).unwrap().is_some(),
            "an IPv4 peer of a socket for both"
        );
    }

    #[test]
    fn nobody_else_can_say_who_they_are() {
        for peer in [
            "10.0.1.7:4000",
            "127.0.0.1:4000",
            "[::1]:4000",
            "[::a00:7]:4000",
        ] {
            assert_eq!(identify(peer, &ALICE), Ok(None), "{peer}");
        }
    }

    #[test]
    fn what_the_proxy_did_not_confirm_is_not_believed() {
        for status in ["Invalid", "confirmed", "Confirmed, Confirmed"] {
            let headers = [("X-Identity-Status", status), ALICE[1], ALICE[2], ALICE[3]];
            assert_eq!(
                identify(PROXY, &headers),
                Err(IdentityError::Invalid(Flaw::Unconfirmed))
            );
        }
        assert_eq!(
            identify(PROXY, &ALICE[1..]),
            Ok(None),
            "without a status nothing is said"
        );
        assert_eq!(
            identify(PROXY, &[ALICE[0], ALICE[2], ALICE[3]]),
            Err(IdentityError::Invalid(Flaw::Incomplete)),
            "nobody is named"
        );
    }

    #[test]
    fn a_second_header_beside_the_proxys_is_refused() {
        for (name, value) in [
            ("X-Roles", "admin"),
            ("X-Project-Id", "p2"),
            ("X-Identity-Status", "Confirmed"),
        ] {
            let mut headers = ALICE.to_vec();
            headers.push((name, value));
            assert_eq!(
                identify(PROXY, &headers),
                Err(IdentityError::Invalid(Flaw::Repeated)),
                "{name}"
            );
        }
    }

    #[test]
    fn scopes_without_a_project_are_told_apart() {
        let scope_with = |name, value| {
            identify(PROXY, &[ALICE[0], ALICE[1], (name, value)])
                .unwrap()
                .unwrap()
                .scope
        };
        assert_eq!(scope_with("OpenStack-System-Scope", "all"), Scope::System);
        assert_eq!(scope_with("X-Domain-Id", "default"), Scope::Domain);
        assert_eq!(scope_with("X-Roles", "reader"), Scope::Unscoped);
        assert_eq!(scope_with("X-Tenant-Id", "p1"), Scope::Project);
    }

    #[test]
    fn service_roles_count_only_when_they_are_confirmed() {
        let with = |extra: &[(&str, &str)]| identify(PROXY, &[&ALICE[..], extra].concat());
        let confirmed = ("X-Service-Identity-Status", "Confirmed");
        let roles = ("X-Service-Roles", "service");
        let caller = with(&[confirmed, roles]).unwrap().unwrap();
        assert_eq!(caller.service_roles().collect::<Vec<_>>(), ["service"]);
        assert_eq!(with(&[roles]).unwrap().unwrap().service_roles().count(), 0);
        assert_eq!(
            with(&[("X-Service-Identity-Status", "Invalid"), roles]),
            Err(IdentityError::Invalid(Flaw::ServiceToken))
        );
    }
}
