//! Who may do what with whose image, through the use cases: tables written by hand, not derived from the rules.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tegula_catalog::db;
use tegula_catalog::rules::Rules;
use tegula_catalog::service::{
    Attribute, Change, ListRequest, PropertyChange, Service, ServiceError,
};
use tegula_domain::policy::Policy;
use tegula_domain::protection::{Format, Protection};
use tegula_domain::query::{Asked, Direction, Filter, SortKey};
use tegula_domain::quota::Limits;
use tegula_domain::{Caller, ImageId, MemberStatus, NewImage, Scope, Visibility};
use tegula_engine::SystemClock;

fn service(rules: Rules) -> Service {
    let next = AtomicU64::new(0);
    let new_ids = move || {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&next.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        ImageId::from_random(bytes)
    };
    Service::new(
        db::open_in_memory().unwrap(),
        rules,
        Arc::new(SystemClock),
        Arc::new(new_ids),
        Limits::default(),
    )
}

fn owner() -> Caller {
    Caller::new("owner", "ours", ["member", "reader"])
}

fn admin() -> Caller {
    Caller::new("root", "admins", ["admin", "member", "reader"])
}

const SHAREES: [(&str, MemberStatus); 3] = [
    ("pending", MemberStatus::Pending),
    ("accepted", MemberStatus::Accepted),
    ("rejected", MemberStatus::Rejected),
];

/// Whoever may ask, in the order of the rows of a [`Table`].
fn callers() -> [(&'static str, Caller); 11] {
    let member = |project| Caller::new("u", project, ["member", "reader"]);
    [
        ("own project, no role", Caller::new("u", "ours", [""; 0])),
        ("own project, reader", Caller::new("u", "ours", ["reader"])),
        ("own project, member", owner()),
        ("pending member", member("pending")),
        ("accepted member", member("accepted")),
        ("rejected member", member("rejected")),
        ("another project", member("theirs")),
        ("administrator", admin()),
        ("service", Caller::new("nova", "services", ["service"])),
        (
            "administrator of the deployment",
            admin().with_scope(Scope::System),
        ),
        ("nobody", Caller::anonymous()),
    ]
}

/// A row for each of [`callers`], a column for each visibility: private, shared, community, public. What happens: it is
/// done (`y`), forbidden (`3`), or there is no such image (`4`).
type Table = [&'static str; 11];

const VISIBILITIES: [Visibility; 4] = [
    Visibility::Private,
    Visibility::Shared,
    Visibility::Community,
    Visibility::Public,
];

#[rustfmt::skip]
const SHOW: Table = ["4444", "yyyy", "yyyy", "4yyy", "4yyy", "4yyy", "44yy", "yyyy", "4444", "4444", "4444"];
#[rustfmt::skip]
const WRITE: Table = ["4444", "3333", "yyyy", "4333", "4333", "4333", "4433", "yyyy", "4444", "4444", "4444"];
#[rustfmt::skip]
const PUBLISH: Table = ["4444", "3333", "3333", "4333", "4333", "4333", "4433", "yyyy", "4444", "4444", "4444"];
#[rustfmt::skip]
const SHARE: Table = ["4444", "3333", "3y33", "4333", "4333", "4333", "4433", "3y33", "4444", "4444", "4444"];
#[rustfmt::skip]
const SEE_MEMBERS: Table = ["4444", "3y33", "3y33", "4y33", "4y33", "4y33", "4433", "3y33", "4444", "4444", "4444"];
// Of the project `accepted`: for other members, its membership does not exist.
#[rustfmt::skip]
const SEE_MEMBER: Table = ["4444", "4y44", "4y44", "4444", "4y44", "4444", "4444", "4y44", "4444", "4444", "4444"];
#[rustfmt::skip]
const ANSWER: Table = ["4444", "3333", "3333", "4433", "4y33", "4433", "4433", "3y33", "4444", "4444", "4444"];
// Whether the image stands in the list that is shown unasked; `3` if there is no list.
#[rustfmt::skip]
const LIST: Table = ["3333", "yyyy", "yyyy", "---y", "-y-y", "---y", "---y", "yy-y", "3333", "3333", "3333"];
#[rustfmt::skip]
const LIST_ALL: Table = ["3333", "yyyy", "yyyy", "--yy", "-yyy", "--yy", "--yy", "yyyy", "3333", "3333", "3333"];

/// An image of the project `ours`, of which three projects were made members while it was shared.
fn image(service: &Service, visibility: Visibility) -> ImageId {
    let new = NewImage {
        name: Some("image".to_owned()),
        ..NewImage::default()
    };
    let id = service.create(&owner(), new).unwrap().image().id.clone();
    for (project, status) in SHAREES {
        service.add_member(&owner(), &id, project).unwrap();
        let sharee = Caller::new("u", project, ["member", "reader"]);
        service.set_member(&sharee, &id, project, status).unwrap();
    }
    let change = Change::Set(Attribute::Visibility(visibility));
    service.update(&admin(), &id, &[change]).unwrap();
    id
}

fn sign<T>(result: Result<T, ServiceError>) -> char {
    match result {
        Ok(_) => 'y',
        Err(ServiceError::Denied(_) | ServiceError::Forbidden(_)) => '3',
        Err(ServiceError::NoImage(_) | ServiceError::NoMember { .. }) => '4',
        Err(other) => panic!("{other:?}"),
    }
}

fn listing(visibility: Asked) -> ListRequest {
    ListRequest {
        visibility,
        member_status: Some(MemberStatus::Accepted),
        hidden: false,
        filters: Vec::new(),
        sort: vec![
            (SortKey::CreatedAt, Direction::Descending),
            (SortKey::Id, Direction::Descending),
        ],
        marker: None,
        limit: 10,
    }
}

fn check(what: &str, table: &Table, call: impl Fn(&Service, &Caller, &ImageId) -> char) {
    for ((who, caller), row) in callers().into_iter().zip(table) {
        for (visibility, expected) in VISIBILITIES.into_iter().zip(row.chars()) {
            // A catalog of its own for each: what one caller did must not help the next.
            let service = service(Rules::default());
            let id = image(&service, visibility);
            assert_eq!(
                call(&service, &caller, &id),
                expected,
                "{what}: a {visibility} image, for {who}"
            );
        }
    }
}

#[test]
fn images_are_shown_and_listed_to_whom_the_tables_say() {
    check("show", &SHOW, |service, caller, id| {
        sign(service.show(caller, id))
    });
    for (what, table, asked) in [
        ("list", &LIST, Asked::Usual),
        ("list all", &LIST_ALL, Asked::All),
    ] {
        check(what, table, |service, caller, id| {
            match service.list(caller, listing(asked)) {
                Ok(page) if page.images.iter().any(|view| view.image().id == *id) => 'y',
                Ok(_) => '-',
                error => sign(error),
            }
        });
    }
}

#[test]
fn images_are_changed_and_deleted_by_whom_the_table_says() {
    check("update", &WRITE, |service, caller, id| {
        let change = Change::Set(Attribute::Name(None));
        sign(service.update(caller, id, &[change]))
    });
    check("property", &WRITE, |service, caller, id| {
        let change = PropertyChange::Add("a".to_owned(), "b".to_owned());
        sign(service.update(caller, id, &[Change::Property(change)]))
    });
    check("tag", &WRITE, |service, caller, id| {
        sign(service.add_tag(caller, id, "t"))
    });
    check("delete", &WRITE, |service, caller, id| {
        let outcome = sign(service.delete(caller, id));
        // Whoever may not delete it leaves it where it is.
        assert_eq!(service.show(&admin(), id).is_err(), outcome == 'y');
        outcome
    });
    check("make public", &PUBLISH, |service, caller, id| {
        let change = Change::Set(Attribute::Visibility(Visibility::Public));
        sign(service.update(caller, id, &[change]))
    });
    check("give away", &PUBLISH, |service, caller, id| {
        let change = Change::Set(Attribute::Owner(Some("theirs".to_owned())));
        let outcome = sign(service.update(caller, id, &[change]));
        let image = service.catalog().image(id).unwrap().unwrap();
        assert_eq!(image.owner.as_deref() == Some("ours"), outcome != 'y');
        outcome
    });
}

#[test]
fn memberships_are_the_business_of_whom_the_tables_say() {
    check("add member", &SHARE, |service, caller, id| {
        sign(service.add_member(caller, id, "new"))
    });
    check("members", &SEE_MEMBERS, |service, caller, id| {
        let members = service.members(caller, id);
        if let Ok(members) = &members {
            let all = caller.is_of(Some("ours")) || caller.is_of(Some("admins"));
            assert_eq!(members.len(), if all { 3 } else { 1 });
        }
        sign(members)
    });
    check("member", &SEE_MEMBER, |service, caller, id| {
        sign(service.member(caller, id, "accepted"))
    });
    check("answer", &ANSWER, |service, caller, id| {
        sign(service.set_member(caller, id, "accepted", MemberStatus::Rejected))
    });
}

/// Rules of an operator: members may not read `x_secret`, nor change `x_fixed`; both may be written by `billing`.
fn protected() -> Rules {
    let section = |name: &str, create: &str, read: &str, update: &str| {
        format!(
            "[{name}]\ncreate = {create}\nread = {read}\nupdate = {update}\ndelete = {update}\n"
        )
    };
    let file = section("^x_secret$", "billing", "billing", "billing")
        + &section("^x_fixed$", "billing", "@", "billing")
        + &section("^x_drop$", "member", "billing", "billing")
        + &section(".*", "@", "@", "@");
    Rules {
        policy: Arc::new(Policy::defaults()),
        protection: Protection::parse(&file, &Format::Roles).unwrap(),
    }
}

fn put(name: &str, value: &str) -> Change {
    Change::Property(PropertyChange::Add(name.to_owned(), value.to_owned()))
}

#[test]
fn what_a_caller_cannot_read_survives_what_it_saves() {
    let service = service(protected());
    let id = image(&service, Visibility::Community);
    let billing = owner().with_service_roles(["billing"]);
    service
        .update(
            &billing,
            &id,
            &[put("x_secret", "42"), put("x_fixed", "1"), put("free", "a")],
        )
        .unwrap();

    let seen = service.update(&owner(), &id, &[put("free", "b")]).unwrap();
    assert_eq!(
        seen.image().properties.keys().collect::<Vec<_>>(),
        ["free", "x_fixed"]
    );
    service.add_tag(&owner(), &id, "t").unwrap();
    service.remove_tag(&owner(), &id, "t").unwrap();
    let set = Change::Set(Attribute::Name(Some("new".to_owned())));
    service.update(&owner(), &id, &[set]).unwrap();

    let kept = service.show(&billing, &id).unwrap();
    assert_eq!(
        kept.image().properties.get("x_secret").map(String::as_str),
        Some("42")
    );
    assert!(
        !service
            .show(&owner(), &id)
            .unwrap()
            .image()
            .properties
            .contains_key("x_secret")
    );
}

#[test]
fn a_refused_change_changes_nothing_of_its_request() {
    let service = service(protected());
    let id = image(&service, Visibility::Private);
    let before = service.catalog().image(&id).unwrap().unwrap();
    for (last, expected) in [
        (put("x_secret", "mine"), '3'),
        (put("x_fixed", "mine"), '3'),
        (put("os_glance_import_task", "mine"), '3'),
        (
            Change::Set(Attribute::Owner(Some("theirs".to_owned()))),
            '3',
        ),
        (Change::Set(Attribute::Visibility(Visibility::Public)), '3'),
    ] {
        let changes = [put("first", "1"), last];
        assert_eq!(
            sign(service.update(&owner(), &id, &changes)),
            expected,
            "{changes:?}"
        );
        assert_eq!(
            service.catalog().image(&id).unwrap().unwrap(),
            before,
            "{changes:?}"
        );
    }
    // Written blind once; the second time the caller may not, and is told so.
    service
        .update(&owner(), &id, &[put("x_drop", "1")])
        .unwrap();
    assert_eq!(
        sign(service.update(&owner(), &id, &[put("x_drop", "2")])),
        '3'
    );
}

#[test]
fn a_filter_tells_no_more_than_may_be_read() {
    let service = service(protected());
    let id = image(&service, Visibility::Private);
    let billing = owner().with_service_roles(["billing"]);
    service
        .update(&billing, &id, &[put("x_secret", "42"), put("x_fixed", "1")])
        .unwrap();
    let finds = |caller: &Caller, name: &str, value: &str| {
        let filters = vec![Filter::Property(name.to_owned(), value.to_owned())];
        let request = ListRequest {
            filters,
            ..listing(Asked::Usual)
        };
        service.list(caller, request).unwrap().images.len()
    };
    assert_eq!(finds(&billing, "x_secret", "42"), 1);
    for value in ["42", "41", ""] {
        assert_eq!(finds(&owner(), "x_secret", value), 0, "{value}");
    }
    assert_eq!(finds(&owner(), "x_fixed", "1"), 1);
}

#[test]
fn other_rules_hold_from_when_they_are_put_in_force() {
    let service = service(Rules::default());
    let id = image(&service, Visibility::Private);
    assert_eq!(sign(service.show(&owner(), &id)), 'y');
    let texts = [
        ("get_image", "role:auditor"),
        ("get_images", "role:reader and project_id:%(project_id)s"),
    ];
    let texts = texts
        .into_iter()
        .map(|(name, text)| (name.to_owned(), text.to_owned()))
        .collect();
    service.clone().set_rules(Rules {
        policy: Arc::new(Policy::new(&texts).unwrap()),
        ..Rules::default()
    });
    assert_eq!(sign(service.show(&owner(), &id)), '4');
    // The list is allowed, and what may not be seen is not in it.
    assert!(
        service
            .list(&owner(), listing(Asked::Usual))
            .unwrap()
            .images
            .is_empty()
    );
    let auditor = Caller::new("a", "ours", ["auditor", "reader"]);
    assert_eq!(
        service
            .list(&auditor, listing(Asked::Usual))
            .unwrap()
            .images
            .len(),
        1
    );
}
