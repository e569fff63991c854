//! Every row says what its fixtures say.

use std::collections::BTreeMap;
use vhost_core::wire::row::{HandleRule, MessageName, ReplyRule, Row};
use vhost_core::{BackendCode, FrontendCode};
use vhost_tests::wire::{self, Fixture, Reply, feature};

/// Features that belong to a form of a message and not to the message, or the other way round.
const GATES_OF_FORMS: [(&str, u64, &str); 1] =
    [("SET_LOG_BASE", feature::LOG_SHMFD, "the feature decides about the form: a shared file or an address")];
/// Virtio features that the specification wants and that a row does not.
const VIRTIO_NOT_IN_ROWS: [(&str, u64, &str); 2] = [
    ("NET_SET_MTU", feature::NET_MTU, "QEMU sends it before it acknowledges features"),
    (
        "SET_VRING_ENABLE",
        feature::PROTOCOL_FEATURES,
        "QEMU's network front-end sends it before it acknowledges features",
    ),
];

/// Every message with all its forms.
fn messages() -> Vec<(MessageName, Vec<Fixture>)> {
    let forms = |all: Vec<Fixture>| {
        let mut by_id = BTreeMap::<u32, Vec<Fixture>>::new();
        for form in all {
            by_id.entry(form.id).or_default().push(form);
        }
        by_id
    };
    let frontend = forms(wire::all_frontend_forms()).into_iter();
    let backend = forms(wire::all_backend_forms()).into_iter();
    let frontend = frontend.map(|(id, forms)| (FrontendCode(id).message(), forms));
    frontend.chain(backend.map(|(id, forms)| (BackendCode(id).message(), forms))).collect()
}

/// Every row with its message's name and forms.
fn rows() -> impl Iterator<Item = (&'static Row, &'static str, Vec<Fixture>)> {
    messages().into_iter().map(|(message, forms)| (message.row().unwrap(), message.name().unwrap(), forms))
}

/// The form that tells about the message itself.
fn usual(forms: &[Fixture]) -> &Fixture {
    forms.iter().find(|form| form.is_usual()).unwrap()
}

#[test]
fn the_tables_have_exactly_the_messages_of_the_protocol() {
    let ids = |codes: &[FrontendCode]| Vec::from_iter(codes.iter().map(|code| code.0));
    assert_eq!(ids(FrontendCode::ALL), Vec::from_iter(1..=44));
    // The four of the older virtio-fs dialects have tests of their own.
    let standard = BackendCode::ALL.iter().map(|code| code.0).filter(|id| *id < 1000);
    assert_eq!(Vec::from_iter(standard), Vec::from_iter(1..=10));
    assert!(FrontendCode(0).row().is_none() && FrontendCode(45).row().is_none());
    assert!(BackendCode(0).row().is_none() && BackendCode(11).row().is_none());
    assert_eq!(messages().len(), 54);
    assert_eq!(BackendCode(0).name(), None);
}

#[test]
fn ids_and_names_are_those_of_the_fixtures() {
    for (row, name, forms) in rows() {
        for form in forms {
            assert_eq!((row.id(), name), (form.id, form.name));
        }
    }
}

#[test]
fn messages_show_themselves_by_name() {
    assert_eq!(FrontendCode::SET_MEM_TABLE.message().to_string(), "SET_MEM_TABLE (5)");
    assert_eq!(BackendCode::SHMEM_MAP.message().to_string(), "SHMEM_MAP (9)");
    assert_eq!(format!("{:?}", FrontendCode(99)), "front-end request 99");
    assert_eq!(BackendCode(99).message().to_string(), "back-end request 99");
}

#[test]
fn payload_sizes_are_those_of_the_fixtures() {
    for (row, _, forms) in rows() {
        // The front-end's last word about memory in postcopy re-uses an id with another payload.
        for form in forms.iter().filter(|form| !matches!(form.reply, Reply::Never)) {
            let size = form.payload.len();
            assert!(row.payload.size().allows(size), "{} ({}): {size}, {:?}", form.name, form.form, row.payload);
            for answer in form.answers() {
                let size = answer.payload.len();
                // A reply that is empty to tell a failure, or whose content means nothing.
                let is_free =
                    size == 0 || matches!(row.reply, ReplyRule::LogFile | ReplyRule::Status) || row.id() == 41;
                assert!(is_free || row.reply_payload.size().allows(size), "{}: {}: {size}", form.name, answer.form);
            }
        }
    }
}

#[test]
fn protocol_feature_gates_are_those_of_the_fixtures() {
    for (row, name, forms) in rows() {
        let known = GATES_OF_FORMS.iter().filter(|(known, ..)| *known == name);
        let of_forms = known.fold(0, |bits, (_, more, _)| bits | more);
        let gate = usual(&forms).gate.protocol & !of_forms;
        let found = row.gate.protocol().bits();
        // A row may name what its feature needs anyway, or leave it to the feature.
        assert_eq!(gate & !found, 0, "{}: a fixture wants more", name);
        assert_eq!(found & !feature::with_dependencies(gate), 0, "{}: the row wants more", name);
    }
}

#[test]
fn virtio_feature_gates_are_those_of_the_fixtures() {
    for (row, name, forms) in rows() {
        let known = VIRTIO_NOT_IN_ROWS.iter().filter(|(known, ..)| *known == name);
        let not_held = known.fold(0, |bits, (_, more, _)| bits | more);
        assert_eq!(row.gate.virtio().bits() | not_held, usual(&forms).gate.virtio, "{}", name);
        assert_eq!(row.gate.virtio().bits() & not_held, 0, "{}: held after all", name);
    }
}

#[test]
fn descriptor_rules_are_those_of_the_fixtures() {
    for (row, name, forms) in rows() {
        let counts = Vec::from_iter(forms.iter().map(|form| form.descriptors));
        let title = format!("{}: {:?} {counts:?}", name, row.handles);
        match row.handles {
            HandleRule::None => assert!(counts.iter().all(|&count| count == 0), "{title}"),
            // Where postcopy ends the exchange about a region, nothing comes.
            HandleRule::One => {
                assert!(forms.iter().all(|form| form.descriptors == 1 || form.form.ends_with("taken")), "{title}")
            }
            HandleRule::Tolerated => assert_eq!(counts.iter().max(), Some(&1), "{title}"),
            HandleRule::PerRegion => assert_eq!(counts.iter().max(), Some(&8), "{title}"),
            HandleRule::UnlessBit8 | HandleRule::WithLogFile => {
                assert!(counts.contains(&0) && counts.contains(&1), "{title}");
            }
            other => panic!("{}: no request has {other:?}", name),
        }
    }
}

#[test]
fn reply_rules_are_those_of_the_fixtures() {
    for (row, name, forms) in rows() {
        let usual = usual(&forms);
        let own = matches!(usual.reply, Reply::Own(_));
        let title = format!("{}: {:?}", name, row.reply);
        match row.reply {
            ReplyRule::Own(_) | ReplyRule::LogFile => assert!(own, "{title}"),
            ReplyRule::Status => {
                let numbers =
                    usual.answers().iter().map(|answer| u64::from_ne_bytes(answer.payload[..].try_into().unwrap()));
                assert_eq!(Vec::from_iter(numbers), [0, 1], "{title}");
            }
            ReplyRule::Acknowledged | ReplyRule::AcknowledgedWhenFlagged => {
                assert!(forms.iter().all(|form| form.answers().is_empty()), "{title}");
            }
            ReplyRule::Postcopy => assert!(!own && forms.iter().any(|form| !form.answers().is_empty()), "{title}"),
            other => panic!("{}: a new rule {other:?}", name),
        }
    }
}

#[test]
fn descriptors_of_replies_are_those_of_the_fixtures() {
    for (row, name, forms) in rows() {
        let answers = Vec::from_iter(forms.iter().flat_map(|form| form.answers()).map(|answer| answer.descriptors));
        match row.reply_handles {
            HandleRule::None => assert!(answers.iter().all(|&count| count == 0), "{}", name),
            _ => assert!(answers.contains(&0) && answers.contains(&1), "{}: {answers:?}", name),
        }
    }
}
