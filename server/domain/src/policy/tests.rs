//! What the default rules allow whom, against a table written by hand; and what of an operator's texts is refused.

use super::*;
use crate::{Image, ImageId, ImageStatus, Lineage, Timestamp, Visibility};

fn image(owner: Option<&str>, visibility: Visibility) -> Image {
    Image {
        id: ImageId::from_random([7; 16]),
        name: Some("An image".to_owned()),
        status: ImageStatus::Active,
        visibility,
        protected: false,
        hidden: false,
        checksum: None,
        hash: None,
        owner: owner.map(str::to_owned),
        size: Some(10),
        virtual_size: None,
        disk_format: Some("raw".to_owned()),
        container_format: None,
        min_ram: 512,
        min_disk: 0,
        tags: BTreeSet::new(),
        properties: BTreeMap::new(),
        locations: Vec::new(),
        lineage: Lineage::default(),
        created_at: Timestamp::from_micros(0),
        updated_at: Timestamp::from_micros(0),
        version: 1,
    }
}

fn policy(texts: &[(&str, &str)]) -> Result<Policy, PolicyError> {
    Policy::new(
        &texts
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
            .collect(),
    )
}

/// Whether a rule of that text allows the caller.
fn allows(text: &str, caller: &Caller, target: &dyn Target) -> bool {
    policy(&[("asked", text)])
        .unwrap()
        .allows_named("asked", caller, target)
}

const ROLES: [(&str, &[&str]); 6] = [
    ("nobody", &[]),
    ("reader", &["reader"]),
    ("member", &["member", "reader"]),
    ("manager", &["manager", "member", "reader"]),
    ("admin", &["admin", "manager", "member", "reader"]),
    ("service", &["service"]),
];

/// A row for each of [`ROLES`]; in it, for an image of the caller's project, one whose member the project is, and another's:
/// private, shared, community and public.
type Table = [&'static str; 6];

#[rustfmt::skip]
const SEE: Table = [
    //own  member other
    "---- ---- ----", // nobody
    "yyyy -yyy --yy", // reader
    "yyyy -yyy --yy", // member
    "yyyy -yyy --yy", // manager
    "yyyy yyyy yyyy", // admin
    "---- ---- ----", // service
];

#[rustfmt::skip]
const DOWNLOAD: Table = [
    "---- ---- ----",
    "---- ---- ----",
    "yyyy -yyy --yy",
    "yyyy -yyy --yy",
    "yyyy yyyy yyyy",
    "---- ---- ----",
];

#[rustfmt::skip]
const WRITE: Table = [
    "---- ---- ----",
    "---- ---- ----",
    "yyyy ---- ----",
    "yyyy ---- ----",
    "yyyy yyyy yyyy",
    "---- ---- ----",
];

#[rustfmt::skip]
const READ_OWN: Table = [
    "---- ---- ----",
    "yyyy ---- ----",
    "yyyy ---- ----",
    "yyyy ---- ----",
    "yyyy yyyy yyyy",
    "---- ---- ----",
];

#[rustfmt::skip]
const ADMINISTER: Table = [
    "---- ---- ----",
    "---- ---- ----",
    "---- ---- ----",
    "---- ---- ----",
    "yyyy yyyy yyyy",
    "---- ---- ----",
];

#[rustfmt::skip]
const SERVE: Table = [
    "---- ---- ----",
    "---- ---- ----",
    "---- ---- ----",
    "---- ---- ----",
    "yyyy yyyy yyyy",
    "yyyy yyyy yyyy",
];

#[rustfmt::skip]
const SERVE_OR_WRITE: Table = [
    "---- ---- ----",
    "---- ---- ----",
    "yyyy ---- ----",
    "yyyy ---- ----",
    "yyyy yyyy yyyy",
    "yyyy yyyy yyyy",
];

#[rustfmt::skip]
const SEE_MEMBERSHIP: Table = [
    "---- ---- ----",
    "yyyy -y-- ----",
    "yyyy -y-- ----",
    "yyyy -y-- ----",
    "yyyy yyyy yyyy",
    "---- ---- ----",
];

#[rustfmt::skip]
const ANSWER_MEMBERSHIP: Table = [
    "---- ---- ----",
    "---- ---- ----",
    "---- -y-- ----",
    "---- -y-- ----",
    "yyyy yyyy yyyy",
    "---- ---- ----",
];

#[rustfmt::skip]
const LIST: Table = [
    "---- ---- ----",
    "yyyy yyyy yyyy",
    "yyyy yyyy yyyy",
    "yyyy yyyy yyyy",
    "yyyy yyyy yyyy",
    "---- ---- ----",
];

#[rustfmt::skip]
const READ_NAMESPACE: Table = [
    "---- ---- ----",
    "yyyy ---y ---y",
    "yyyy ---y ---y",
    "yyyy ---y ---y",
    "yyyy yyyy yyyy",
    "---- ---- ----",
];

const EVERYBODY: Table = ["yyyy yyyy yyyy"; 6];

/// What each rule is to allow, written by hand from the Images API's reference.
const EXPECTED: &[(&Table, &[&str])] = &[
    (&SEE, &["get_image"]),
    (
        &LIST,
        &[
            "get_images",
            "get_metadef_namespaces",
            "list_metadef_resource_types",
        ],
    ),
    (&DOWNLOAD, &["download_image", "download_from_store"]),
    (
        &WRITE,
        &[
            "add_image",
            "modify_image",
            "delete_image",
            "upload_image",
            "communitize_image",
            "set_image_location",
            "deactivate",
            "reactivate",
            "add_member",
            "delete_member",
            "set_lineage",
            "lineage_flatten",
            "lineage_coalesce",
            "lineage_rebase",
        ],
    ),
    (&READ_OWN, &["get_image_location"]),
    (
        &ADMINISTER,
        &[
            "context_is_admin",
            "publicize_image",
            "delete_image_location",
            "copy_image",
            "list_cached_nodes",
            "manage_image_cache",
            "cache_image",
            "cache_list",
            "cache_delete",
            "cache_clean",
            "cache_prune",
            "tasks_api_access",
            "metadef_admin",
            "modify_metadef_namespace",
            "add_metadef_namespace",
            "delete_metadef_namespace",
            "modify_metadef_object",
            "add_metadef_object",
            "delete_metadef_object",
            "add_metadef_resource_type_association",
            "remove_metadef_resource_type_association",
            "modify_metadef_property",
            "add_metadef_property",
            "remove_metadef_property",
            "modify_metadef_tag",
            "add_metadef_tag",
            "add_metadef_tags",
            "delete_metadef_tag",
            "delete_metadef_tags",
        ],
    ),
    (
        &SERVE,
        &["service_api", "fetch_image_location", "stores_info_detail"],
    ),
    (&SERVE_OR_WRITE, &["add_image_location"]),
    (&SEE_MEMBERSHIP, &["get_member", "get_members"]),
    (&ANSWER_MEMBERSHIP, &["modify_member"]),
    (
        &READ_NAMESPACE,
        &[
            "get_metadef_namespace",
            "get_metadef_object",
            "get_metadef_objects",
            "get_metadef_resource_type",
            "get_metadef_property",
            "get_metadef_properties",
            "get_metadef_tag",
            "get_metadef_tags",
        ],
    ),
    (
        &EVERYBODY,
        &[
            "default",
            "metadef_default",
            "get_task",
            "get_tasks",
            "add_task",
            "modify_task",
        ],
    ),
];

#[test]
fn the_default_rules_allow_what_the_table_says() {
    const VISIBILITIES: [Visibility; 4] = [
        Visibility::Private,
        Visibility::Shared,
        Visibility::Community,
        Visibility::Public,
    ];
    let policy = Policy::defaults();
    let mut cells = 0;
    for (table, names) in EXPECTED {
        for name in *names {
            let rule = Rule::from_name(name).unwrap_or_else(|| panic!("no rule {name}"));
            for ((who, roles), row) in ROLES.into_iter().zip(*table) {
                let caller = Caller::new("user", "ours", roles);
                let relations = [
                    (Some("ours"), None),
                    (Some("theirs"), Some("ours")),
                    (Some("theirs"), None),
                ];
                for ((owner, member), group) in relations.into_iter().zip(row.split(' ')) {
                    for (visibility, sign) in VISIBILITIES.into_iter().zip(group.chars()) {
                        let image = image(owner, visibility);
                        let target = ImageTarget::new(&image, member);
                        assert_eq!(
                            policy.allows(rule, &caller, &target),
                            sign == 'y',
                            "{name} for {who}: a {visibility} image of {owner:?}, member {member:?}"
                        );
                        cells += 1;
                    }
                }
            }
        }
    }
    let named: Vec<&str> = EXPECTED
        .iter()
        .flat_map(|(_, names)| *names)
        .copied()
        .collect();
    for rule in Rule::ALL {
        assert!(
            named.contains(&rule.name()),
            "{} is not in the table",
            rule.name()
        );
    }
    assert_eq!(cells, Rule::ALL.len() * 6 * 12);
}

#[test]
fn an_image_of_no_project_is_an_administrators_unless_it_is_open() {
    let policy = Policy::defaults();
    let reader = Caller::new("u", "ours", ["reader", "member"]);
    for (visibility, seen) in [
        (Visibility::Private, false),
        (Visibility::Shared, true),
        (Visibility::Community, true),
        (Visibility::Public, true),
    ] {
        let image = image(None, visibility);
        let target = ImageTarget::new(&image, None);
        assert_eq!(
            policy.allows(Rule::GetImage, &reader, &target),
            seen,
            "{visibility}"
        );
        assert!(!policy.allows(Rule::ModifyImage, &reader, &target));
        // Who has no project is not of no project: that both have none makes nobody an owner.
        let mut nobody = reader.clone();
        nobody.project = None;
        assert!(!policy.allows(Rule::ModifyImage, &nobody, &target));
        assert!(!policy.allows(Rule::AddImage, &nobody, &Attributes::owned_by(None)));
        assert_eq!(policy.allows(Rule::GetImage, &nobody, &target), seen);
    }
}

#[test]
fn images_are_added_to_ones_own_project() {
    let policy = Policy::defaults();
    let member = Caller::new("u", "ours", ["member", "reader"]);
    let admin = Caller::new("u", "ours", ["admin"]);
    for (owner, may) in [(Some("ours"), true), (Some("theirs"), false), (None, false)] {
        let target = Attributes::owned_by(owner);
        assert_eq!(policy.allows(Rule::AddImage, &member, &target), may);
        assert!(policy.allows(Rule::AddImage, &admin, &target));
    }
}

#[test]
fn tokens_of_a_domain_or_the_whole_deployment_are_denied_everything() {
    let policy = Policy::defaults();
    let admin = Caller::new("u", "p", ["admin", "member", "reader"]);
    for scope in [Scope::Domain, Scope::System] {
        let caller = admin.clone().with_scope(scope);
        for rule in Rule::ALL {
            assert_eq!(
                policy.check(*rule, &caller, &()),
                Err(Denied::Scope),
                "{rule:?}"
            );
        }
        assert!(!policy.is_admin(&caller) && !policy.allows_named("default", &caller, &()));
    }
    // Without any identity service, everybody administers, of no project.
    assert!(policy.is_admin(&admin.clone().with_scope(Scope::Unscoped)));
    assert!(!policy.is_admin(&Caller::anonymous()));
    assert_eq!(
        policy.check(Rule::GetImages, &Caller::anonymous(), &()),
        Err(Denied::Rule(Rule::GetImages))
    );
}

#[test]
fn a_service_on_behalf_of_a_user_may_what_services_may() {
    let policy = Policy::defaults();
    let user = Caller::new("u", "p", ["reader"]);
    let served = user.clone().with_service_roles(["Service"]);
    for rule in [
        Rule::FetchImageLocation,
        Rule::AddImageLocation,
        Rule::StoresInfoDetail,
    ] {
        assert!(!policy.allows(rule, &user, &()));
        assert!(policy.allows(rule, &served, &()), "{rule:?}");
    }
    assert!(!policy.allows(Rule::DeleteImage, &served, &()));
    assert!(!policy.is_admin(&user.with_service_roles(["admin"])));
}

#[test]
fn roles_are_compared_in_lower_case_and_nothing_else_is() {
    let caller = Caller::new("u", "p", ["Image_Admin"]);
    for text in ["role:image_admin", "role:IMAGE_ADMIN", "roles:Image_Admin"] {
        assert!(allows(text, &caller, &()), "{text}");
    }
    for text in [
        "role:image_admın",
        "role:ｉｍａｇｅ_ａｄｍｉｎ",
        "role:image_admin\u{200b}",
    ] {
        assert!(!allows(text, &caller, &()), "{text}");
    }
    assert!(allows("user_id:u", &caller, &()) && !allows("user_id:U", &caller, &()));
}

#[test]
fn rules_read_what_the_target_is() {
    let caller = Caller::new("alice", "ours", ["member"]);
    let mut image = image(Some("ours"), Visibility::Community);
    image.protected = true;
    let properties = [
        ("speed", "fast"),
        ("project_id", "theirs"),
        ("member_id", "ours"),
        ("builder", "alice"),
        ("odd", "None"),
        ("group", "memb"),
    ];
    image.properties = properties
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let target = ImageTarget::new(&image, None);
    let cases = [
        ("project_id:%(project_id)s", true),
        ("project_id:%(owner)s", true),
        ("tenant:%(owner)s", true),
        ("user:%(builder)s", true),
        ("'community':%(visibility)s", true),
        ("\"community\":%(visibility)s", true),
        ("True:%(protected)s", true),
        ("'True':%(protected)s", true),
        ("False:%(os_hidden)s", true),
        ("False:%(protected)s", false),
        ("10:%(size)s", true),
        ("'10':%(size)s", true),
        ("512:%(min_ram)s", true),
        ("None:%(checksum)s", true),
        ("'None':%(checksum)s", false),
        ("None:%(odd)s", false),
        ("None:%(owner)s", false),
        ("'fast':%(speed)s", true),
        ("'very fast':%(speed)s", false),
        ("role:%(group)ser", true),
        ("role:%(speed)s", false),
        ("role:%(checksum)s", false),
        // The image's own attributes stand before properties of the same name.
        ("'theirs':%(project_id)s", false),
        ("project_id:%(member_id)s", false),
        // What is not there equals nothing.
        ("None:%(nothing)s", false),
        ("user_id:%(nothing)s", false),
        ("not user_id:%(nothing)s", true),
        ("'':%(checksum)s", false),
        ("'x':x%(checksum)s", false),
        ("'speed: fast 10%':%(speed)s", false),
        ("'fast-10%':%(speed)s-%(size)s%%", true),
        ("is_admin:True", false),
        ("is_admin:False", true),
        ("system_scope:all", false),
        ("", true),
        ("@", true),
        ("!", false),
    ];
    for (text, expected) in cases {
        assert_eq!(allows(text, &caller, &target), expected, "{text}");
    }
}

#[test]
fn a_membership_counts_only_while_the_image_is_shared() {
    let caller = Caller::new("u", "ours", ["member", "reader"]);
    for visibility in Visibility::ALL {
        let image = image(Some("theirs"), visibility);
        let target = ImageTarget::new(&image, Some("ours"));
        assert_eq!(
            allows("project_id:%(member_id)s", &caller, &target),
            visibility == Visibility::Shared,
            "{visibility}"
        );
    }
}

#[test]
fn and_binds_before_or_and_not_before_both() {
    let caller = Caller::new("u", "p", ["a"]);
    for (text, expected) in [
        ("@ or @ and !", true),
        ("(@ or @) and !", false),
        ("! and ! or @", true),
        ("not ! and @", true),
        ("not (! or @)", false),
        ("not not @", true),
        ("NOT ! AnD @", true),
        ("((role:a))", true),
        ("(role:a)and(not role:b)", true),
        ("role:b or role:a", true),
        ("\t role:a\n and @ ", true),
    ] {
        assert_eq!(allows(text, &caller, &()), expected, "{text}");
    }
}

#[test]
fn what_is_not_the_language_is_refused_by_rule_and_place() {
    let cases = [
        (" ", 2, "the end"),
        ("role:a and", 11, "the end"),
        ("role:a role:b", 8, "`role:b`"),
        ("and role:a", 1, "`and`"),
        ("(role:a", 8, "the end"),
        ("role:a)", 7, "`)`"),
        ("()", 2, "`)`"),
        ("role:", 6, "the end"),
        ("role: a", 6, "` `"),
        ("member", 1, "`member`"),
        ("@@", 1, "`@@`"),
        (":a", 1, "`:a`"),
        ("rule:", 6, "the end"),
        ("group:a", 1, "`group:a`"),
        ("http://127.0.0.1/%(id)s", 1, "`http://127.0.0.1/%`"),
        ("'a:%(b)s", 9, "the end"),
        ("'a' :%(b)s", 4, "` `"),
        (r"'a\n':%(b)s", 4, r"`n':%`"),
        ("'public'", 9, "the end"),
        ("role:'admin'", 6, "`'admin'`"),
        ("role:a%", 7, "`%`"),
        ("role:%(a)d", 6, "`%`"),
        ("role:%()s", 6, "`%`"),
        ("role:%(a b)s", 6, "`%`"),
        ("010:%(size)s", 1, "`010:%`"),
        ("1.5:%(size)s", 1, "`1.5:%`"),
        ("is_admin:yes", 10, "`yes`"),
        ("is_admin:true", 10, "`true`"),
        ("role:é or x", 11, "`x`"),
        ("role:admin, role:member", 13, "`role:member`"),
    ];
    for (text, position, found) in cases {
        match policy(&[("get_image", text)]) {
            Err(PolicyError::Syntax { rule, error }) => {
                assert_eq!(
                    (rule.as_str(), error.position, error.found.as_str()),
                    ("get_image", position, found),
                    "{text}: {error}"
                );
            }
            other => panic!("{text}: {other:?}"),
        }
    }
    assert_eq!(
        policy(&[("get_image", "role:a or rol:b")])
            .unwrap_err()
            .to_string(),
        "rule get_image, at character 11: expected one of rule, role, is_admin, user_id, user, project_id, tenant, roles, \
         service_roles, system_scope, a text in quotes, True, False, None or a number before the colon, found `rol:b`"
    );
    assert!(matches!(
        policy(&[(" ", "@")]),
        Err(PolicyError::NoName { .. })
    ));
}

#[test]
fn rules_must_exist_and_lead_somewhere() {
    assert_eq!(
        policy(&[("a", "@ or rule:nobody")]),
        Err(PolicyError::UnknownRule {
            rule: "a".to_owned(),
            reference: "nobody".to_owned(),
            position: 11,
        })
    );
    let circle = policy(&[
        ("a", "rule:b"),
        ("b", "@ and (rule:c or @)"),
        ("c", "not rule:b"),
    ]);
    assert_eq!(
        circle.unwrap_err().to_string(),
        "rule b, at character 13: it refers to itself: b → c → b"
    );
    assert!(matches!(
        policy(&[("a", "rule:a")]),
        Err(PolicyError::Circle { circle, .. }) if circle == ["a", "a"]
    ));
    // `is_admin` asks context_is_admin, which therefore cannot ask it.
    assert!(matches!(
        policy(&[("context_is_admin", "is_admin:True")]),
        Err(PolicyError::Circle { .. })
    ));
}

#[test]
fn rules_that_take_too_long_are_refused() {
    // Forty rules that each ask the next one twice would be a million million comparisons.
    let doubling: Vec<(String, String)> = (0..15)
        .map(|n| {
            (
                format!("r{n:02}"),
                format!("rule:r{0:02} and rule:r{0:02}", n + 1),
            )
        })
        .chain([("r15".to_owned(), "@".to_owned())])
        .collect();
    let error = Policy::new(&doubling.into_iter().collect()).unwrap_err();
    assert!(
        matches!(
            &error,
            PolicyError::TooLarge {
                what: "comparisons",
                ..
            }
        ),
        "{error}"
    );
    for (rows, fits) in [(16, true), (17, false), (100_000, false)] {
        for forward in [true, false] {
            let name = |n: usize| format!("r{:06}", if forward { n } else { rows - n });
            let row = (0..rows)
                .map(|n| (name(n), format!("rule:{}", name(n + 1))))
                .chain([(name(rows), "@".to_owned())])
                .collect();
            let result = Policy::new(&row);
            assert_eq!(result.is_ok(), fits, "{rows} {forward}");
            if let Err(error) = result {
                assert!(matches!(
                    error,
                    PolicyError::TooLarge {
                        what: "rules in a row",
                        ..
                    }
                ));
            }
        }
    }
    for (text, fits) in [
        ("(".repeat(32) + "@" + &")".repeat(32), true),
        ("(".repeat(33) + "@" + &")".repeat(33), false),
        ("(".repeat(60_000), false),
        ("not ".repeat(16_000) + "@", false),
        ("not ".repeat(32) + "@", true),
        ("@ or ".repeat(9_999) + "@", true),
        ("@ or ".repeat(10_000) + "@", false),
        (" ".repeat(65_536) + "@", false),
    ] {
        let length = text.len();
        assert_eq!(policy(&[("a", &text)]).is_ok(), fits, "{length} bytes");
    }
}

#[test]
fn an_operators_texts_replace_defaults_of_their_name_and_stand_beside_the_others() {
    let policy = policy(&[
        ("download_image", "rule:context_is_admin or role:puller"),
        ("context_is_admin", "role:root"),
        ("restricted", "not ('test_key':%(x_key)s and role:_member_)"),
        ("delete_image", "rule:restricted"),
        ("get_imges", "!"),
    ])
    .unwrap();
    let puller = Caller::new("u", "p", ["puller"]);
    assert!(policy.allows(Rule::DownloadImage, &puller, &()));
    assert!(!policy.allows(Rule::GetImage, &puller, &()));
    assert!(policy.is_admin(&Caller::new("u", "p", ["root"])));
    assert!(!policy.is_admin(&Caller::new("u", "p", ["admin"])));
    assert!(!policy.allows_named("nobody", &puller, &()));
    assert_eq!(policy.unused().collect::<Vec<_>>(), ["get_imges"]);
    assert_eq!(Policy::defaults().unused().count(), 0);
}

#[test]
fn glances_own_texts_mean_what_they_mean_there() {
    // As its sample file has them, for an operator who takes the comment signs away.
    let policy = policy(&[
        (
            "get_images",
            "rule:context_is_admin or (role:reader and project_id:%(project_id)s)",
        ),
        (
            "add_image",
            "rule:context_is_admin or (role:member and project_id:%(project_id)s and project_id:%(owner)s)",
        ),
        ("modify_member", "rule:context_is_admin or (role:member and project_id:%(member_id)s)"),
        ("get_task", "rule:default"),
        ("default", ""),
    ])
    .unwrap();
    let member = Caller::new("u", "ours", ["member", "reader"]);
    let own = Attributes::owned_by(member.project.as_deref());
    assert!(policy.allows(Rule::GetImages, &member, &own));
    assert!(policy.allows(Rule::AddImage, &member, &own));
    assert!(!policy.allows(
        Rule::AddImage,
        &member,
        &Attributes::owned_by(Some("theirs"))
    ));
    let membership = Attributes::owned_by(Some("theirs")).with("member_id", Value::Text("ours"));
    assert!(policy.allows(Rule::ModifyMember, &member, &membership));
    assert!(!policy.allows(Rule::ModifyMember, &member, &own));
    assert!(policy.allows(Rule::GetTask, &member, &()));
}

#[test]
fn a_policy_written_out_is_the_same_policy() {
    let policy = Policy::defaults();
    let texts = policy
        .texts()
        .map(|(name, text)| (name.to_owned(), text))
        .collect();
    let again = Policy::new(&texts).unwrap();
    assert_eq!(
        again.texts().collect::<Vec<_>>(),
        policy.texts().collect::<Vec<_>>()
    );
}

mod properties {
    use super::super::expression::{CallerAttribute, Expression, Left, Piece, Template};
    use super::super::parse::parse;
    use super::super::*;
    use proptest::prelude::*;

    fn template() -> impl Strategy<Value = Template> {
        let piece = prop_oneof![
            "[a-zA-Z0-9_.:%é-]{1,6}".prop_map(Piece::Text),
            "[a-zA-Z0-9_.:%-]{1,6}".prop_map(Piece::Attribute),
        ];
        prop::collection::vec(piece, 1..4).prop_map(|pieces| {
            // Two texts in a row are one.
            let mut merged: Vec<Piece> = Vec::new();
            for piece in pieces {
                match (merged.last_mut(), piece) {
                    (Some(Piece::Text(text)), Piece::Text(more)) => text.push_str(&more),
                    (_, piece) => merged.push(piece),
                }
            }
            Template(merged)
        })
    }

    fn left() -> impl Strategy<Value = Left> {
        prop_oneof![
            prop::sample::select(CallerAttribute::NAMES.to_vec())
                .prop_map(|(_, attribute)| Left::Caller(attribute)),
            "[ a-z'\"\\\\()%:é]{0,8}".prop_map(Left::Text),
            any::<bool>().prop_map(Left::Bool),
            Just(Left::None),
            any::<i64>().prop_map(Left::Integer),
        ]
    }

    fn expression() -> impl Strategy<Value = Expression> {
        let leaf = prop_oneof![
            Just(Expression::Always),
            Just(Expression::Never),
            "[a-zA-Z0-9_.:'%-]{1,8}".prop_map(Expression::Rule),
            template().prop_map(Expression::Role),
            (left(), template()).prop_map(|(left, right)| Expression::Same(left, right)),
        ];
        leaf.prop_recursive(5, 24, 4, |inner| {
            prop_oneof![
                inner
                    .clone()
                    .prop_map(|inner| Expression::Not(Box::new(inner))),
                prop::collection::vec(inner.clone(), 2..4).prop_map(Expression::All),
                prop::collection::vec(inner, 2..4).prop_map(Expression::Any),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_out_reads_the_same(expression in expression()) {
            let text = expression.to_string();
            let parsed = parse(&text).map_err(|error| TestCaseError::fail(format!("{text}: {error}")))?;
            prop_assert_eq!(parsed.expression, expression, "{}", text);
        }

        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            if let Ok(parsed) = parse(&text) {
                let again = parse(&parsed.expression.to_string()).expect("because it was read before");
                prop_assert_eq!(again.expression, parsed.expression);
            }
        }

        #[test]
        fn any_words_of_the_language_are_read_or_refused(
            words in prop::collection::vec(prop::sample::select(vec![
                "and", "or", "not", "(", ")", " ", "@", "!", "role:", "rule:", "default", "'", "\"", "\\", "%", "%(", ")s", ":",
                "project_id:", "True", "None", "-1", "is_admin:", "True", "\u{a0}", "member",
            ]), 0..24),
        ) {
            let text = words.concat();
            let result = Policy::new(&BTreeMap::from([("a".to_owned(), text.clone())]));
            if let Ok(policy) = result {
                let caller = Caller::new("u", "p", ["member"]);
                let answer = policy.allows_named("a", &caller, &());
                let written = policy.texts().find(|(name, _)| *name == "a").expect("because it is there").1;
                let again = Policy::new(&BTreeMap::from([("a".to_owned(), written)])).expect("because it was read before");
                prop_assert_eq!(again.allows_named("a", &caller, &()), answer, "{}", text);
            }
        }
    }
}
