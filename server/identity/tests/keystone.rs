//! Identity against a Keystone that misbehaves in every way a test can think of.

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

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Method;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use support::{FakeKeystone, PASSWORD, Received, Reply, TOMORROW, World, settings};
use tegula_domain::{Caller, Scope};
use tegula_identity::{Flaw, IdentityError, TrustAnchors};
use tokio_rustls::TlsAcceptor;

const UNKNOWN: Result<Caller, IdentityError> = Err(IdentityError::Invalid(Flaw::Unknown));

/// Logs everyone in as `own-N`, where N counts from 1, and answers validations by `validate`.
async fn keystone(validate: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> FakeKeystone {
    let logins = AtomicUsize::new(0);
    FakeKeystone::start(move |request, _| {
        if request.is_login() {
            Reply::logged_in(&format!(
                "own-{}",
                logins.fetch_add(1, Ordering::SeqCst) + 1
            ))
        } else {
            validate(request)
        }
    })
    .await
}

/// Asks once about a token, of a Keystone that answers with one reply.
async fn identify_with(reply: Reply) -> Result<Caller, IdentityError> {
    let fake = keystone(move |_| reply.clone()).await;
    let mut settings = settings(&fake.url);
    settings.timeout = Duration::from_millis(700);
    World::new(settings).token("t").await
}

fn assert_unavailable(answer: Result<Caller, IdentityError>, expected: &str) {
    match answer {
        Err(IdentityError::Unavailable(cause)) => {
            assert!(cause.contains(expected), "`{expected}` in `{cause}`");
            assert!(
                !cause.contains("canary"),
                "nothing of a body or password in `{cause}`"
            );
        }
        other => panic!("expected `{expected}`, found {other:?}"),
    }
}

#[tokio::test]
async fn a_good_token_has_a_caller() {
    let fake = keystone(|_| Reply::member("alice")).await;
    let world = World::new(settings(&fake.url));
    assert_eq!(
        world.token("t1").await,
        Ok(Caller::new("alice", "p1", ["member", "reader"]))
    );
    let [login, validation]: [Received; 2] = fake.received().try_into().unwrap();
    assert_eq!(
        (login.method.as_str(), login.target.as_str()),
        ("POST", "/v3/auth/tokens?nocatalog=1")
    );
    let body: serde_json::Value = serde_json::from_str(&login.body).unwrap();
    let user = &body["auth"]["identity"]["password"]["user"];
    assert_eq!(
        (user["name"].as_str(), user["password"].as_str()),
        (Some("glance"), Some(PASSWORD))
    );
    assert_eq!(user["domain"]["name"], "Default");
    assert_eq!(body["auth"]["scope"]["project"]["domain"]["id"], "default");
    assert_eq!(
        (validation.method.as_str(), validation.target.as_str()),
        ("GET", "/v3/auth/tokens?nocatalog=1")
    );
    assert_eq!(validation.header("x-auth-token"), "own-1");
    assert_eq!(validation.header("x-subject-token"), "t1");
    assert_eq!(validation.header("openstack-identity-access-rules"), "1.0");
}

#[tokio::test]
async fn a_request_without_a_token_is_not_asked_about() {
    let fake = keystone(|_| Reply::member("alice")).await;
    let world = World::new(settings(&fake.url));
    for headers in [
        &[][..],
        &[("x-auth-token", "")],
        &[("x-service-token", "s")],
    ] {
        assert_eq!(
            world.ask(&Method::GET, "/", headers).await,
            Err(IdentityError::Missing)
        );
    }
    assert_eq!(fake.received().len(), 0);
    assert_eq!(
        world.identity.challenge(),
        format!("Keystone uri=\"{}\"", fake.url)
    );
}

#[tokio::test]
async fn identity_headers_of_a_client_change_nothing() {
    let fake = keystone(|_| Reply::member("alice")).await;
    let world = World::new(settings(&fake.url));
    let forged = [
        ("x-auth-token", "t"),
        ("x-identity-status", "Confirmed"),
        ("x-user-id", "root"),
        ("x-project-id", "p2"),
        ("x-tenant-id", "p2"),
        ("x-roles", "admin"),
        ("x-role", "admin"),
        ("x_roles", "admin"),
        ("x-service-roles", "service"),
        ("x-service-identity-status", "Confirmed"),
        ("x-is-admin-project", "True"),
        ("openstack-system-scope", "all"),
    ];
    let expected = Caller::new("alice", "p1", ["member", "reader"]);
    assert_eq!(
        world.ask(&Method::GET, "/v2/images", &forged).await,
        Ok(expected)
    );
    assert_eq!(
        world.ask(&Method::GET, "/v2/images", &forged[1..]).await,
        Err(IdentityError::Missing)
    );
}

#[tokio::test]
async fn a_token_that_keystone_does_not_know_is_invalid_and_asked_about_each_time() {
    let fake = keystone(|_| Reply::status(404)).await;
    let world = World::new(settings(&fake.url));
    assert_eq!(world.token("t").await, UNKNOWN);
    assert_eq!(world.token("t").await, UNKNOWN);
    assert_eq!((fake.logins(), fake.validations()), (1, 2));
}

#[tokio::test]
async fn answers_that_are_no_answer_leave_the_token_undecided() {
    for status in [300, 302, 400, 403, 405, 410, 413, 429, 500, 502, 503, 504] {
        assert_unavailable(
            identify_with(Reply::status(status)).await,
            &status.to_string(),
        );
    }
    let ok = |body: &str| Reply::Whole(200, vec![], body.to_owned());
    for body in ["", "canary", "{}", r#"{"token": {}}"#, &"[".repeat(100_000)] {
        assert_unavailable(identify_with(ok(body)).await, "not understood");
    }
    assert_unavailable(
        identify_with(Reply::token("u", "canary", "", &[])).await,
        "expires_at",
    );
    assert_unavailable(
        identify_with(ok(&format!("{{\"a\": \"{}\"}}", "x".repeat(2 << 20)))).await,
        "bytes",
    );
    assert_unavailable(identify_with(Reply::Silence).await, "within 700 ms");
    assert_unavailable(identify_with(Reply::Stall).await, "within 700 ms");
}

#[tokio::test]
async fn what_is_not_http_leaves_the_token_undecided() {
    for raw in [
        &b""[..],
        b"canary\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    ] {
        assert_unavailable(identify_with(Reply::Raw(raw.to_vec())).await, "");
    }
    let mut headers = b"HTTP/1.1 200 OK\r\n".to_vec();
    (0..100_000).for_each(|i| headers.extend(format!("X-{i}: y\r\n").bytes()));
    assert_unavailable(identify_with(Reply::Raw(headers)).await, "");
}

#[tokio::test]
async fn an_answer_without_an_end_is_not_read_to_the_end() {
    let mut endless = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    (0..64).for_each(|_| {
        endless.extend([b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat())
    });
    assert_unavailable(identify_with(Reply::Raw(endless)).await, "bytes");
}

#[tokio::test]
async fn a_keystone_that_is_not_there_leaves_the_token_undecided() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let world = World::new(settings(&format!("http://{closed}")));
    assert_unavailable(world.token("t").await, "cannot connect");
}

#[tokio::test]
async fn our_own_token_is_renewed_once_when_it_is_refused() {
    let fake = keystone(|request| match request.header("x-auth-token") {
        "own-1" => Reply::status(401),
        _ => Reply::member("alice"),
    })
    .await;
    let world = World::new(settings(&fake.url));
    assert!(world.token("t1").await.is_ok());
    assert!(world.token("t2").await.is_ok());
    assert_eq!((fake.logins(), fake.validations()), (2, 3));
}

#[tokio::test]
async fn a_keystone_that_refuses_every_token_of_ours_is_not_asked_for_ever() {
    let fake = keystone(|_| Reply::status(401)).await;
    let world = World::new(settings(&fake.url));
    assert_unavailable(world.token("t").await, "refuses a token");
    assert_eq!((fake.logins(), fake.validations()), (2, 2));
}

#[tokio::test]
async fn many_requests_that_find_our_token_refused_renew_it_once() {
    let fake = keystone(|request| match request.header("x-auth-token") {
        "own-1" => Reply::After(Duration::from_millis(50), Box::new(Reply::status(401))),
        _ => Reply::member("alice"),
    })
    .await;
    let world = Arc::new(World::new(settings(&fake.url)));
    let tasks: Vec<_> = (0..8)
        .map(|i| {
            let world = Arc::clone(&world);
            tokio::spawn(async move { world.token(&format!("t{i}")).await })
        })
        .collect();
    for task in tasks {
        assert!(task.await.unwrap().is_ok());
    }
    assert_eq!(fake.logins(), 2);
}

#[tokio::test]
async fn our_own_token_is_renewed_before_it_ends() {
    let fake = FakeKeystone::start(|request, _| match request.is_login() {
        true => Reply::logged_in_until("own", "2026-11-25T01:00:00Z"),
        false => Reply::status(404),
    })
    .await;
    let world = World::new(settings(&fake.url));
    assert_eq!(world.token("t").await, UNKNOWN);
    world.pass_seconds(3600 - 31);
    assert_eq!(world.token("t").await, UNKNOWN);
    assert_eq!(fake.logins(), 1);
    world.pass_seconds(2);
    assert_eq!(world.token("t").await, UNKNOWN);
    assert_eq!(fake.logins(), 2);
}

#[tokio::test]
async fn refused_credentials_are_not_tried_again_at_once() {
    let fake = FakeKeystone::start(|_, _| Reply::status(401)).await;
    let world = World::new(settings(&fake.url));
    for _ in 0..5 {
        assert_unavailable(
            world.token("t").await,
            "our own credentials, of user `glance`",
        );
    }
    assert_eq!(fake.received().len(), 1);
}

#[tokio::test]
async fn a_login_that_is_not_understood_leaves_the_token_undecided() {
    for reply in [
        Reply::status(500),
        Reply::status(404),
        Reply::Whole(201, vec![], support::token_json("u", TOMORROW, "", &[])),
        Reply::Whole(
            201,
            vec![("X-Subject-Token", "own".to_owned())],
            "canary".to_owned(),
        ),
        Reply::Whole(
            302,
            vec![("Location", "http://127.0.0.1:1/canary".to_owned())],
            String::new(),
        ),
    ] {
        let fake = FakeKeystone::start(move |_, _| reply.clone()).await;
        assert_unavailable(World::new(settings(&fake.url)).token("t").await, "login");
    }
}

#[tokio::test]
async fn a_good_answer_is_remembered_until_it_is_old() {
    let fake = keystone(|_| Reply::member("alice")).await;
    let mut short = settings(&fake.url);
    short.cache_lifetime = Duration::from_millis(300);
    let world = World::new(short);
    for _ in 0..20 {
        assert!(world.token("t").await.is_ok());
    }
    assert_eq!(fake.validations(), 1);
    assert!(world.token("another").await.is_ok());
    assert_eq!(fake.validations(), 2);
    tokio::time::sleep(Duration::from_millis(350)).await;
    assert!(world.token("t").await.is_ok());
    assert_eq!(fake.validations(), 3);
}

#[tokio::test]
async fn a_remembered_token_ends_when_it_said_it_would() {
    let fake = keystone(|_| Reply::token("alice", "2026-11-25T00:01:00Z", "", &["member"])).await;
    let world = World::new(settings(&fake.url));
    assert!(world.token("t").await.is_ok());
    world.pass_seconds(59);
    assert!(world.token("t").await.is_ok());
    world.pass_seconds(1);
    assert_eq!(
        world.token("t").await,
        Err(IdentityError::Invalid(Flaw::Expired))
    );
    assert_eq!(fake.validations(), 1);
}

#[tokio::test]
async fn a_token_that_keystone_calls_good_though_it_has_ended_is_invalid() {
    let fake = keystone(|_| Reply::token("alice", "2026-11-24T23:59:59Z", "", &["member"])).await;
    let world = World::new(settings(&fake.url));
    assert_eq!(
        world.token("t").await,
        Err(IdentityError::Invalid(Flaw::Expired))
    );
}

#[tokio::test]
async fn a_failure_is_not_remembered() {
    let fake = FakeKeystone::start(|request, before| match (request.is_login(), before) {
        (true, _) => Reply::logged_in("own"),
        (_, 1) => Reply::status(503),
        _ => Reply::member("alice"),
    })
    .await;
    let world = World::new(settings(&fake.url));
    assert_unavailable(world.token("t").await, "503");
    assert!(world.token("t").await.is_ok());
}

#[tokio::test]
async fn requests_with_one_new_token_ask_once() {
    let fake =
        keystone(|_| Reply::After(Duration::from_millis(100), Box::new(Reply::member("alice"))))
            .await;
    let world = Arc::new(World::new(settings(&fake.url)));
    let ask = || {
        let world = Arc::clone(&world);
        tokio::spawn(async move { world.token("t").await })
    };
    let first = ask();
    while fake.validations() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let others: Vec<_> = (0..50).map(|_| ask()).collect();
    tokio::task::yield_now().await;
    first.abort();
    for other in others {
        assert!(
            other.await.unwrap().is_ok(),
            "the first asker left, the question went on"
        );
    }
    assert_eq!(fake.validations(), 1);
}

#[tokio::test]
async fn no_more_than_the_configured_number_of_questions_are_asked_at_once() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let fake = keystone(|_| Reply::Silence).await;
    let mut bounded = settings(&fake.url);
    bounded.questions_max = 3;
    bounded.timeout = Duration::from_millis(400);
    let world = Arc::new(World::new(bounded));
    let tasks: Vec<_> = (0..20)
        .map(|i| {
            let (world, now, most) = (Arc::clone(&world), Arc::clone(&now), Arc::clone(&most));
            tokio::spawn(async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let answer = world.token(&format!("t{i}")).await;
                now.fetch_sub(1, Ordering::SeqCst);
                answer
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!((most.load(Ordering::SeqCst), fake.validations()), (20, 3));
    for task in tasks {
        assert_unavailable(task.await.unwrap(), "within 400 ms");
    }
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_is_replaced() {
    let fake = FakeKeystone::start(|request, before| match (request.is_login(), before) {
        (true, _) => Reply::logged_in("own"),
        (_, 1) => Reply::Raw(Vec::new()),
        _ => Reply::member("alice"),
    })
    .await;
    assert!(World::new(settings(&fake.url)).token("t").await.is_ok());
    assert_eq!(fake.validations(), 2);
}

#[tokio::test]
async fn scopes_are_told_apart() {
    for (more, scope) in [
        (r#""project": {"id": "p1"}"#, Scope::Project),
        (r#""domain": {"id": "default"}"#, Scope::Domain),
        (r#""system": {"all": true}"#, Scope::System),
        ("", Scope::Unscoped),
    ] {
        let caller = identify_with(Reply::token("u", TOMORROW, more, &["admin"]))
            .await
            .unwrap();
        assert_eq!(caller, Caller::new("u", "p1", ["admin"]).with_scope(scope));
    }
}

/// `expired` ended yesterday and is told only with `allow_expired=1`; `service`, `plain` and `old-service` are of services.
async fn with_services() -> FakeKeystone {
    const YESTERDAY: &str = "2026-11-24T00:00:00Z";
    keystone(|request| {
        match (
            request.header("x-subject-token"),
            request.target.contains("allow_expired=1"),
        ) {
            ("service", false) => Reply::token(
                "nova",
                TOMORROW,
                r#""project": {"id": "service"}"#,
                &["Service", "admin"],
            ),
            ("plain", false) => Reply::token(
                "mallory",
                TOMORROW,
                r#""project": {"id": "p1"}"#,
                &["member"],
            ),
            ("old-service", false) => Reply::token("nova", YESTERDAY, "", &["service"]),
            ("expired", true) => Reply::token(
                "alice",
                YESTERDAY,
                r#""project": {"id": "p1"}"#,
                &["member"],
            ),
            ("alice", _) => {
                Reply::token("alice", TOMORROW, r#""project": {"id": "p1"}"#, &["member"])
            }
            _ => Reply::status(404),
        }
    })
    .await
}

#[tokio::test]
async fn a_service_speaks_on_behalf_of_a_user() {
    let fake = with_services().await;
    let world = World::new(settings(&fake.url));
    let alice = Caller::new("alice", "p1", ["member"]);
    assert_eq!(world.token("alice").await, Ok(alice.clone()));
    let with_service = alice.with_service_roles(["service", "admin"]);
    assert_eq!(
        world.with_service("alice", "service").await,
        Ok(with_service.clone())
    );
    assert_eq!(world.token("expired").await, UNKNOWN);
    assert_eq!(
        world.with_service("expired", "service").await,
        Ok(with_service)
    );
    assert_eq!(
        world.token("expired").await,
        Err(IdentityError::Invalid(Flaw::Expired)),
        "that a service may use it does not make it good for others"
    );
}

#[tokio::test]
async fn a_service_token_that_is_not_good_spoils_the_request() {
    let fake = with_services().await;
    let world = World::new(settings(&fake.url));
    for (service, flaw) in [
        ("unknown", Flaw::ServiceToken),
        ("old-service", Flaw::ServiceToken),
        ("plain", Flaw::ServiceRole),
    ] {
        assert_eq!(
            world.with_service("alice", service).await,
            Err(IdentityError::Invalid(flaw)),
            "{service}"
        );
        assert_eq!(
            world.with_service("expired", service).await,
            Err(IdentityError::Invalid(flaw)),
            "{service}"
        );
    }
    assert!(
        !fake
            .received()
            .iter()
            .any(|request| request.target.contains("allow_expired"))
    );
}

#[tokio::test]
async fn access_rules_restrict_a_token_unless_a_service_presents_it() {
    const RULES: &str = r#""project": {"id": "p1"}, "application_credential": {"id": "c", "restricted": true,
        "access_rules": [
            {"id": "1", "service": "image", "method": "GET", "path": "/v2/images/{image_id}"},
            {"id": "2", "service": "compute", "method": "GET", "path": "/v2/images"}]}"#;
    let fake = keystone(|request| match request.header("x-subject-token") {
        "service" => Reply::token("nova", TOMORROW, "", &["service"]),
        "none" => Reply::token(
            "alice",
            TOMORROW,
            r#""project": {"id": "p1"}, "application_credential": {"id": "c", "access_rules": []}"#,
            &["member"],
        ),
        "unrestricted" => Reply::token(
            "alice",
            TOMORROW,
            r#""project": {"id": "p1"}, "application_credential": {"id": "c", "restricted": true}"#,
            &["member"],
        ),
        _ => Reply::token("alice", TOMORROW, RULES, &["member"]),
    })
    .await;
    let world = World::new(settings(&fake.url));
    let token = ("x-auth-token", "t");
    assert!(
        world
            .ask(&Method::GET, "/v2/images/1", &[token])
            .await
            .is_ok()
    );
    for (method, path) in [
        (Method::GET, "/v2/images"),
        (Method::DELETE, "/v2/images/1"),
        (Method::GET, "/v2/images/1/file"),
    ] {
        assert_eq!(
            world.ask(&method, path, &[token]).await,
            Err(IdentityError::Forbidden),
            "{method} {path}"
        );
        assert!(
            world
                .ask(&method, path, &[token, ("x-service-token", "service")])
                .await
                .is_ok()
        );
    }
    assert_eq!(
        world.token("none").await,
        Err(IdentityError::Forbidden),
        "no rule allows nothing"
    );
    assert!(world.token("unrestricted").await.is_ok());
}

fn acceptor() -> TlsAcceptor {
    let file = |name: &str| format!("{}/tests/tls/{name}", env!("CARGO_MANIFEST_DIR"));
    let certificate = CertificateDer::from_pem_file(file("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(file("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

#[tokio::test]
async fn a_keystone_behind_tls_is_trusted_only_by_its_authority_and_name() {
    let start = |address| {
        FakeKeystone::start_tls(address, acceptor(), |request, _| match request.is_login() {
            true => Reply::logged_in("own"),
            false => Reply::member("alice"),
        })
    };
    let fake = start("127.0.0.1:0").await;
    let authority = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls/ca.pem");
    let trusting = |fake: &FakeKeystone, authority: &str| {
        let mut settings = settings(&fake.url);
        settings.trust = TrustAnchors::File(authority.into());
        World::new(settings)
    };
    assert!(trusting(&fake, authority).token("t").await.is_ok());

    let of_another_name = start("127.0.0.2:0").await;
    assert_unavailable(
        trusting(&of_another_name, authority).token("t").await,
        "certificate",
    );
    let of_another_authority = start("127.0.0.1:0").await;
    // A certificate of a server is none of an authority.
    let server = authority.replace("ca.pem", "server.pem");
    assert_unavailable(
        trusting(&of_another_authority, &server).token("t").await,
        "certificate",
    );
    for fake in [of_another_name, of_another_authority] {
        assert_eq!(
            fake.received().len(),
            0,
            "no password goes to a server that is not trusted"
        );
    }
}
