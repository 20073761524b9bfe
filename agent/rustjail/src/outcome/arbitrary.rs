//! Specs that nobody would write: patches of the golden files laid over each other, then changed at random.
//!
//! The words come from the golden files too, so that a new property is mixed in with its first golden case.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Map, Value, json};

use super::golden::{base_config, patches};
use super::{judge, merge};

/// Texts that a parser may not have thought of.
const ODD_TEXTS: [&str; 22] = [
    "",
    " ",
    "/",
    "//",
    ".",
    "..",
    "/..",
    "/a/../b",
    "a/./b",
    "a\0b",
    "\n",
    "-1",
    "max",
    "ä/\u{202e}",
    "%s",
    "=",
    "a=",
    ":",
    "0-",
    "0-4294967295",
    "18446744073709551616",
    "rrro",
];

/// Numbers at the edges of what fields hold.
const ODD_NUMBERS: [i64; 14] =
    [0, -1, 1, 2, 7, 64, 1000, 1001, 65_536, 2_147_483_648, 4_294_967_295, 4_294_967_296, i64::MAX, i64::MIN];

/// One change to a tree.
#[derive(Debug, Clone)]
enum Change {
    Replace(Index, Value),
    Remove(Index),
    /// A list's entry once more, or a field under another name.
    Again(Index, String),
    Insert(Index, String, Value),
}

/// All keys and texts of a tree.
pub(super) fn words(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::String(text) => into.push(text.clone()),
        Value::Array(list) => list.iter().for_each(|value| words(value, into)),
        Value::Object(map) => map.iter().for_each(|(key, value)| {
            into.push(key.clone());
            words(value, into);
        }),
        _ => {}
    }
}

fn dictionary() -> Vec<String> {
    let mut all: Vec<String> = ODD_TEXTS.map(str::to_owned).to_vec();
    patches().iter().chain([&base_config()]).for_each(|value| words(value, &mut all));
    all.sort();
    all.dedup();
    all
}

fn value(words: Vec<String>) -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        4 => select(words.clone()).prop_map(Value::from),
        1 => any::<String>().prop_map(Value::from),
        3 => select(ODD_NUMBERS.to_vec()).prop_map(Value::from),
        1 => any::<u64>().prop_map(Value::from),
        1 => any::<f64>().prop_map(|number| json!(number)),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(Value::Null),
        // Longer than anything has a right to be.
        1 => (1usize..6000).prop_map(|length| Value::from("x".repeat(length))),
    ];
    leaf.prop_recursive(2, 12, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((select(words.clone()), inner), 0..4)
                .prop_map(|entries| Value::Object(entries.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let words = dictionary();
    let (index, word) = (any::<Index>, select(words.clone()));
    let change = prop_oneof![
        4 => (index(), value(words.clone())).prop_map(|(at, value)| Change::Replace(at, value)),
        1 => index().prop_map(Change::Remove),
        1 => (index(), word.clone()).prop_map(|(at, word)| Change::Again(at, word)),
        2 => (index(), word, value(words)).prop_map(|(at, word, value)| Change::Insert(at, word, value)),
    ];
    prop::collection::vec(change, 0..5)
}

/// Paths of all values below the root, as JSON pointers.
fn pointers(value: &Value, path: &str, into: &mut Vec<String>) {
    let mut add = |key: &str, value: &Value| {
        let path = format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"));
        pointers(value, &path, into);
        into.push(path);
    };
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| add(key, value)),
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(index, value)| add(&index.to_string(), value))
        }
        _ => {}
    }
}

fn apply(config: &mut Value, change: &Change) {
    let mut all = Vec::new();
    pointers(config, "", &mut all);
    if all.is_empty() {
        return;
    }
    let (Change::Replace(at, _) | Change::Remove(at) | Change::Again(at, _) | Change::Insert(at, _, _)) =
        change;
    let pointer = at.get(&all).as_str();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let key = key.replace("~1", "/").replace("~0", "~");
    let old = config.pointer(pointer).cloned().unwrap_or_default();
    match (change, config.pointer_mut(parent)) {
        (Change::Replace(_, value), _) => *config.pointer_mut(pointer).unwrap() = value.clone(),
        (Change::Remove(_), Some(Value::Object(map))) => drop(map.remove(&key)),
        (Change::Remove(_), Some(Value::Array(list))) => drop(list.remove(key.parse().unwrap())),
        (Change::Again(_, word), Some(Value::Object(map))) => drop(map.insert(word.clone(), old)),
        (Change::Again(..), Some(Value::Array(list))) => list.push(old),
        (Change::Insert(_, word, value), Some(Value::Object(map))) => {
            drop(map.insert(word.clone(), value.clone()))
        }
        (Change::Insert(_, _, value), Some(Value::Array(list))) => list.push(value.clone()),
        _ => {}
    }
}

fn config() -> impl Strategy<Value = Value> {
    let layers = prop::collection::vec(select(patches()), 0..4);
    (layers, changes()).prop_map(|(layers, changes)| {
        let mut config = base_config();
        layers.iter().for_each(|patch| merge(&mut config, patch));
        changes.iter().for_each(|change| apply(&mut config, change));
        config
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_spec_is_planned_or_refused(config in config()) {
        judge(config.to_string().as_bytes());
    }

    #[test]
    fn any_text_is_no_danger(text in prop::collection::vec(any::<u8>(), 0..200)) {
        judge(&text);
    }
}

#[test]
fn many_arbitrary_specs_are_good_ones() {
    // Else the laws would hold for nothing.
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let strategy = config();
    let planned = (0..300).filter(|_| {
        let config = strategy.new_tree(&mut runner).unwrap().current();
        super::Outcome::of_config(&config, &super::Circumstances::default()).is_ok()
    });
    let count = planned.count();
    assert!((30..270).contains(&count), "{count} of 300 specs are planned");
}
