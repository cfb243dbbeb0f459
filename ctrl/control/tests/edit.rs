//! Edits of a policy: what they make is what the whole document would, and what they refuse is told with its place.

use control::document::{
    EditError, Limits, ObjectKey, Parsed, RuleEdit, RuleSelector, edit_rule, merge, parse_policy, put, remove,
};
use control::export::export;
use control::model::{Key, Policy};

const POLICY: &str = "
vpcs:
  - { name: prod, segment: { vlan: 1 }, peers: [shared] }
  - { name: shared, segment: { vlan: 2 } }
address_groups: [{ name: office, addresses: [203.0.113.0/24] }]
security_groups:
  - { name: web, rules: [{ direction: inbound, protocol: tcp, ports: 80, remote_address_group: office }] }
  - { name: app, rules: [{ direction: inbound, remote_group: web }] }
nics:
  - { name: one, vpc: prod, addresses: [10.0.0.1], security_groups: [web] }
  - { name: two, vpc: shared, addresses: [10.0.0.2] }
";

fn policy() -> Policy {
    whole(POLICY)
}

fn whole(text: &str) -> Policy {
    parse_policy(text, "test", &Limits::default()).unwrap().policy
}

fn group(name: &str) -> ObjectKey {
    ObjectKey::SecurityGroup(Key::in_default(name))
}

fn nic(name: &str) -> ObjectKey {
    ObjectKey::Nic(Key::in_default(name))
}

fn limits() -> Limits {
    Limits::default()
}

/// An edit makes a policy that is valid as a whole document.
fn sound(edited: impl Into<Parsed>) -> Policy {
    let policy = edited.into().policy;
    assert_eq!(whole(&export(&policy)), policy);
    policy
}

fn message<T: std::fmt::Debug>(refused: Result<T, EditError>) -> String {
    match refused.unwrap_err() {
        EditError::Bad(diagnostic) => diagnostic.to_string(),
        EditError::NotFound(what) | EditError::InUse(what) => what,
    }
}

#[test]
fn objects_are_put_in_as_a_whole_document_would() {
    let mut present = policy();
    let rules = "[{ direction: inbound, protocol: tcp, ports: 443, remote_group: app }]";
    present =
        sound(put(&present, &group("web"), &format!("{{ name: web, rules: {rules} }}"), &limits()).unwrap());
    present = sound(
        put(&present, &nic("three"), "{ name: three, vpc: prod, addresses: [10.0.0.3] }", &limits()).unwrap(),
    );
    present = sound(
        put(&present, &ObjectKey::Vpc("shared".into()), "{ name: shared, segment: { vlan: 3 } }", &limits())
            .unwrap(),
    );
    let expected = POLICY
        .replace("[{ direction: inbound, protocol: tcp, ports: 80, remote_address_group: office }]", rules)
        .replace(", peers: [shared]", "")
        .replace("vlan: 2", "vlan: 3")
        + "  - { name: three, vpc: prod, addresses: [10.0.0.3] }\n";
    assert_eq!(present, whole(&expected));
}

#[test]
fn several_objects_go_in_at_once_or_not_at_all() {
    let text = "
security_groups: [{ name: db, rules: [{ direction: inbound, remote_group: app }] }]
nics: [{ name: three, vpc: prod, addresses: [10.0.0.3], security_groups: [db, web] }]";
    let merged = sound(merge(&policy(), text, "more.yaml", &limits()).unwrap());
    assert_eq!((merged.nics.len(), merged.security_groups.len()), (3, 4));
    let refused = merge(&policy(), &text.replace("10.0.0.3", "10.0.0.1"), "more.yaml", &limits());
    let text = message(refused);
    assert!(
        text.starts_with("more.yaml:3:") && text.contains("10.0.0.1 is an address of the NIC \"one\""),
        "{text}"
    );
    assert_eq!(sound(merge(&policy(), "# nothing", "x", &limits()).unwrap()), policy());
}

#[test]
fn what_clashes_with_the_rest_is_refused() {
    let refused = |key: &ObjectKey, text: &str| message(put(&policy(), key, text, &limits()));
    let text = refused(&group("web"), "{ name: web, rules: [{ direction: inbound, remote_group: nobody }] }");
    assert!(
        text.contains("\"nobody\" is no security group of the project \"default\"; allowed: app, web"),
        "{text}"
    );
    let text = refused(&nic("three"), "{ name: three, vpc: shared, addresses: [10.0.0.1] }");
    assert!(text.contains("in the peered VPC \"prod\" too"), "{text}");
    let text = refused(&nic("three"), "{ name: three, vpc: prod, security_groups: [nope] }");
    assert!(text.contains("\"nope\" is no security group"), "{text}");
    let text = refused(&nic("three"), "{ name: four, vpc: prod }");
    assert!(text.contains("the object is the NIC \"four\"; allowed: the one that is asked for"), "{text}");
    let text = refused(&ObjectKey::Vpc("new".into()), "{ name: new, segment: { vlan: 1 } }");
    assert!(text.contains("the segment VLAN 1 stands in line 1 already"), "{text}");
}

#[test]
fn objects_are_taken_out_unless_something_needs_them() {
    let in_use = |key: &ObjectKey| message(remove(&policy(), key));
    assert!(in_use(&group("web")).contains("is used by the NIC \"one\""));
    assert!(
        in_use(&ObjectKey::AddressGroup(Key::in_default("office")))
            .contains("used by the security group \"web\"")
    );
    assert!(in_use(&ObjectKey::Vpc("prod".into())).contains("used by the NIC \"one\""));
    assert_eq!(in_use(&nic("nobody")), "NIC \"nobody\"; near names: one, two");
    assert!(
        in_use(&group("default")).starts_with("security group \"default\"; near names: "),
        "implied ones are nobody's to take away"
    );
    let present = sound(remove(&policy(), &group("app")).unwrap());
    let present = sound(remove(&present, &nic("two")).unwrap());
    let present = sound(remove(&present, &ObjectKey::Vpc("shared".into())).unwrap());
    let present = sound(remove(&present, &nic("one")).unwrap());
    assert!(!present.security_groups.contains_key(&Key::in_default("default")), "nobody needs it any more");
    sound(remove(&present, &group("web")).unwrap());
}

#[test]
fn rules_are_edited_one_by_one() {
    let web = Key::in_default("web");
    let edit = |present: &Policy, edit: RuleEdit| edit_rule(present, &web, &edit, &limits());
    let ssh = "{ direction: inbound, protocol: tcp, ports: 22 }";
    let added = sound(edit(&policy(), RuleEdit::Add(ssh.to_owned())).unwrap());
    assert_eq!(added.security_groups[&web].rules.len(), 2);
    assert!(
        message(edit(&added, RuleEdit::Add(ssh.to_owned()))).contains("a rule of the same meaning stands")
    );
    let set = sound(edit(&added, RuleEdit::Set(RuleSelector::Position(0), ssh.replace("22", "23"))).unwrap());
    assert_eq!(set.security_groups[&web].rules[0].ports, Some((23, 23)));
    let deleted = sound(edit(&set, RuleEdit::Delete(RuleSelector::Position(0))).unwrap());
    assert_eq!(deleted.security_groups[&web].rules[0].ports, Some((22, 22)));
    assert_eq!(
        message(edit(&deleted, RuleEdit::Delete(RuleSelector::Position(1)))),
        "rule web#1; the group has web#0 to web#0"
    );
    let identity = deleted.security_groups[&web].rules[0].meaning().identity();
    let by_identity = RuleSelector::Identity(identity);
    let moved = sound(edit(&added, RuleEdit::Delete(RuleSelector::Position(0))).unwrap());
    let gone = sound(edit(&moved, RuleEdit::Delete(by_identity)).unwrap());
    assert!(gone.security_groups[&web].rules.is_empty(), "found wherever it stands");
    let missing = message(edit(&gone, RuleEdit::Delete(by_identity)));
    assert_eq!(missing, format!("rule {identity} in web; the group has no rules"));
    let bad = message(edit(&policy(), RuleEdit::Add("{ direction: inbound, ports: 22 }".to_owned())));
    assert!(bad.starts_with("rule of web:1:"), "{bad}");
    let mut full = policy();
    for port in 1..50 {
        full = edit(&full, RuleEdit::Add(format!("{{ direction: inbound, protocol: udp, ports: {port} }}")))
            .unwrap()
            .policy;
    }
    assert!(
        message(edit(&full, RuleEdit::Add(ssh.to_owned())))
            .contains("51 rules in the group \"web\"; allowed: 50")
    );
}
