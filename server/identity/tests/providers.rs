//! Several ways to know a caller, in order.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends at the first surprise"
)]
#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each test uses its part of what they share"
)]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;

use http::Method;
use support::{FakeKeystone, Reply, World, ask, header_map, settings};
use tegula_domain::{Caller, Timestamp};
use tegula_identity::{
    Flaw, Identity, IdentityError, Keystone, NewToken, OpenOnLoopback, Provider, StaticToken,
    StaticTokens, TrustedHeaders,
};

const LOOPBACK: &str = "127.0.0.1:4000";
const ELSEWHERE: &str = "10.1.1.1:4000";

async fn from(
    identity: &Identity,
    peer: &str,
    headers: &[(&str, &str)],
) -> Result<Caller, IdentityError> {
    let peer: SocketAddr = peer.parse().unwrap();
    ask(
        identity,
        &Method::GET,
        "/v2/images",
        &header_map(headers),
        peer,
    )
    .await
}

fn admin() -> Caller {
    Caller::new("admin", "admin", ["admin"])
}

#[tokio::test]
async fn nobody_is_known_without_a_provider() {
    let identity = Identity::new(vec![]);
    assert_eq!(
        from(&identity, LOOPBACK, &[]).await,
        Err(IdentityError::Missing)
    );
    assert_eq!(
        from(&identity, LOOPBACK, &[("x-auth-token", "t")]).await,
        Err(IdentityError::Invalid(Flaw::Unknown))
    );
    assert_eq!(identity.challenge(), "X-Auth-Token realm=\"tegula\"");
}

#[tokio::test]
async fn open_access_is_for_requests_of_the_machine_itself() {
    let identity = Identity::new(vec![Provider::OpenOnLoopback(OpenOnLoopback::new(admin()))]);
    for peer in [
        LOOPBACK,
        "127.8.0.1:1",
        "[::1]:4000",
        "[::ffff:127.0.0.1]:4000",
    ] {
        assert_eq!(from(&identity, peer, &[]).await, Ok(admin()), "{peer}");
    }
    for peer in [ELSEWHERE, "[::2]:1", "0.0.0.0:1", "[::ffff:10.0.0.1]:1"] {
        assert_eq!(
            from(&identity, peer, &[]).await,
            Err(IdentityError::Missing),
            "{peer}"
        );
    }
    for (name, value) in [
        ("forwarded", "for=10.1.1.1"),
        ("x-forwarded-for", "10.1.1.1"),
        ("x-forwarded-for", ""),
        ("x-real-ip", "10.1.1.1"),
        ("via", "1.1 proxy"),
        ("origin", "https://example.org"),
        ("host", "example.org:9292"),
        ("host", "localhost.example.org"),
        ("host", "127.0.0.1.example.org"),
        ("host", "10.1.1.1:9292"),
        ("host", ""),
        ("host", "a b"),
    ] {
        assert_eq!(
            from(&identity, LOOPBACK, &[(name, value)]).await,
            Err(IdentityError::Missing),
            "{name}"
        );
    }
    for host in [
        "127.0.0.1:9292",
        "127.8.0.1",
        "[::1]:9292",
        "LocalHost:9292",
        "images.localhost",
    ] {
        assert_eq!(
            from(&identity, LOOPBACK, &[("host", host)]).await,
            Ok(admin()),
            "{host}"
        );
    }
    let wrong = [("x-auth-token", "revoked")];
    assert_eq!(
        from(&identity, LOOPBACK, &wrong).await,
        Err(IdentityError::Invalid(Flaw::Unknown)),
        "a bad token is not as good as none"
    );
}

#[tokio::test]
async fn a_static_token_is_good_beside_a_keystone_that_does_not_know_it() {
    let token = NewToken::generate().unwrap();
    let tokens = StaticTokens::new(vec![StaticToken::new(token.hash(), "ops", "p9", ["admin"])]);
    let known = Ok(tokens_caller());
    for (status, other) in [
        (404, IdentityError::Invalid(Flaw::Unknown)),
        (
            503,
            IdentityError::Unavailable(
                "it answers the validation of a token with status 503 Service Unavailable"
                    .to_owned(),
            ),
        ),
    ] {
        let fake = FakeKeystone::start(move |request, _| match request.is_login() {
            true => Reply::logged_in("own"),
            false => Reply::status(status),
        })
        .await;
        let keystone = Keystone::new(
            settings(&fake.url),
            Arc::new(|| Timestamp::from_micros(support::START_US)),
        )
        .unwrap();
        let keystone = Provider::Keystone(Arc::new(keystone));
        let statics = Provider::StaticTokens(tokens.clone());
        for providers in [
            vec![keystone.clone(), statics.clone()],
            vec![statics, keystone],
        ] {
            let identity = Identity::new(providers);
            assert_eq!(
                from(&identity, ELSEWHERE, &[("x-auth-token", token.reveal())]).await,
                known
            );
            assert_eq!(
                from(&identity, ELSEWHERE, &[("x-auth-token", "t")]).await,
                Err(other.clone())
            );
        }
    }
}

fn tokens_caller() -> Caller {
    Caller::new("ops", "p9", ["admin", "manager", "member", "reader"])
}

#[tokio::test]
async fn a_static_token_of_a_service_lends_its_roles() {
    let (user, service) = (NewToken::generate().unwrap(), NewToken::generate().unwrap());
    let other = NewToken::generate().unwrap();
    let identity = Identity::new(vec![Provider::StaticTokens(StaticTokens::new(vec![
        StaticToken::new(other.hash(), "alice", "p2", ["admin"]),
        StaticToken::new(user.hash(), "alice", "p1", ["member"]),
        StaticToken::new(service.hash(), "nova", "services", ["service"]),
    ]))]);
    let with = |service: &str| {
        [
            ("x-auth-token", user.reveal().to_owned()),
            ("x-service-token", service.to_owned()),
        ]
    };
    let ask = async |service: &str| {
        let headers = with(service);
        let headers: Vec<(&str, &str)> = headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        from(&identity, ELSEWHERE, &headers).await
    };
    let alice = Caller::new("alice", "p1", ["member", "reader"]);
    assert_eq!(
        ask(service.reveal()).await,
        Ok(alice.with_service_roles(["service"]))
    );
    assert_eq!(
        ask("unknown").await,
        Err(IdentityError::Invalid(Flaw::ServiceToken))
    );
    assert_eq!(
        ask(other.reveal()).await,
        Err(IdentityError::Invalid(Flaw::ServiceRole)),
        "nobody borrows the roles of another token"
    );
}

#[tokio::test]
async fn a_proxy_is_believed_before_anything_else_and_others_are_not() {
    let fake = FakeKeystone::start(|request, _| match request.is_login() {
        true => Reply::logged_in("own"),
        false => Reply::member("alice"),
    })
    .await;
    let world = World::new(settings(&fake.url));
    let headers = [
        ("x-identity-status", "Confirmed"),
        ("x-user-id", "bob"),
        ("x-project-id", "p2"),
        ("x-roles", "admin"),
        ("x-auth-token", "t"),
    ];
    let alice = Ok(Caller::new("alice", "p1", ["member", "reader"]));
    assert_eq!(world.ask(&Method::GET, "/", &headers).await, alice);

    let keystone = Keystone::new(
        settings(&fake.url),
        Arc::new(|| Timestamp::from_micros(support::START_US)),
    )
    .unwrap();
    let identity = Identity::new(vec![
        Provider::TrustedHeaders(TrustedHeaders::from_peers(vec![
            "10.1.0.0/16".parse().unwrap(),
        ])),
        Provider::Keystone(Arc::new(keystone)),
    ]);
    assert_eq!(
        from(&identity, ELSEWHERE, &headers).await,
        Ok(Caller::new("bob", "p2", ["admin"]))
    );
    assert_eq!(
        from(&identity, LOOPBACK, &headers).await,
        alice,
        "not a proxy"
    );
    assert_eq!(
        from(&identity, ELSEWHERE, &headers[4..]).await,
        alice,
        "the proxy says nothing"
    );
}
