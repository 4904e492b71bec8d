use std::collections::BTreeMap;

use bytes::Bytes;

use super::part::Seen;
use super::*;
use crate::part::PIECE;

#[derive(Clone, Debug, Default, PartialEq)]
struct Shop {
    total: Value<u64>,
    orders: Table<String, u64>,
    picture: Blob,
}

impl Tables for Shop {
    fn parts(&mut self) -> Vec<(&'static str, &mut dyn TrackedPart)> {
        vec![("state", &mut self.total), ("table.orders", &mut self.orders), ("picture", &mut self.picture)]
    }

    fn check(&self, base: Option<&Self>) -> Result<(), Refusal> {
        if *self.total == 13 && base.is_none_or(|base| *base.total != 13) {
            Err(Refusal::cannot_accept("unlucky"))
        } else {
            Ok(())
        }
    }

    fn merge(&mut self, other: Self) -> Result<(), Refusal> {
        *self.total += *other.total;
        Ok(())
    }
}

fn bytes(part: &Part) -> Vec<u8> {
    part.source().pieces().map(|piece| piece.unwrap()).collect::<Vec<_>>().concat()
}

fn texts(snapshot: &Snapshot) -> BTreeMap<String, String> {
    let text = |part: &Part| (part.name().to_string(), String::from_utf8(bytes(part)).unwrap());
    snapshot.parts.iter().map(text).collect()
}

fn imported(snapshot: &Snapshot) -> Imported {
    let mut state = Imported::default();
    for part in &snapshot.parts {
        state.set(Part::new(part.name().as_str(), Bytes::from(bytes(part))).unwrap());
    }
    state
}

fn put(shop: &Tracked<Shop>, key: &str, value: u64) {
    shop.change(|shop| shop.orders.insert(key.to_owned(), value));
}

fn refusal(shop: &Tracked<Shop>, state: &Imported, since: Option<Seq>) -> String {
    shop.stage(state, since, false).err().unwrap().to_string()
}

#[test]
fn only_changes_are_counted() {
    let shop = Tracked::new(Shop::default());
    shop.change(|shop| shop.orders.remove("none"));
    shop.change(|_| ());
    assert_eq!(shop.seq(), 0);
    put(&shop, "a", 1);
    shop.change(|shop| *shop.total = 4);
    shop.change(|shop| shop.picture.set(vec![Bytes::from_static(b"x")]));
    shop.change(|shop| *shop.orders.get_mut("a").unwrap() += 1);
    assert_eq!(shop.seq(), 4);
    let failed: Result<(), &str> = shop.try_change(|shop| {
        shop.orders.clear();
        Err("no")
    });
    assert_eq!(
        (failed, shop.seq(), shop.read(|shop| shop.orders.get("a").copied())),
        (Err("no"), 4, Some(2))
    );
}

#[test]
fn a_part_that_is_replaced_is_a_change_after_which_deltas_start_anew() {
    let shop = Tracked::new(Shop::default());
    put(&shop, "a", 1);
    shop.change(|shop| *shop = Shop::default());
    assert_eq!((shop.seq(), shop.snapshot(Some(1)).unwrap().since), (2, None));
    put(&shop, "b", 2);
    let delta = shop.snapshot(Some(2)).unwrap();
    assert_eq!((texts(&delta)["table.orders"].as_str(), delta.since), ("[\"b\",2]\n", Some(2)));
    shop.change(|shop| shop.orders = [("c".to_owned(), 3)].into_iter().collect());
    assert_eq!((shop.seq(), shop.snapshot(Some(3)).unwrap().since), (4, None));
}

#[test]
fn a_delta_holds_what_changed_and_nothing_else() {
    let shop = Tracked::new(Shop::default());
    for (key, value) in [("a", 1), ("b", 2), ("c", 3)] {
        put(&shop, key, value);
    }
    let base = shop.seq();
    shop.change(|shop| {
        shop.orders.insert("b".into(), 20);
        shop.orders.remove("c");
    });
    let delta = shop.snapshot(Some(base)).unwrap();
    assert_eq!((delta.seq, delta.since), (base + 1, Some(base)));
    let expected = BTreeMap::from([("table.orders".to_owned(), "[\"b\",20]\n[\"c\"]\n".to_owned())]);
    assert_eq!(texts(&delta), expected);
    let nothing = shop.snapshot(Some(base + 1)).unwrap();
    assert!(nothing.parts.is_empty() && nothing.since == Some(base + 1));
    let whole = shop.snapshot(None).unwrap();
    assert_eq!(texts(&whole)["table.orders"], "[\"a\",1]\n[\"b\",20]\n");
    assert_eq!(texts(&whole).len(), 3, "a whole state has every part");
}

#[test]
fn a_capture_is_one_point_in_time_whatever_happens_to_the_state_afterwards() {
    let shop = Tracked::new(Shop::default());
    put(&shop, "a", 1);
    let (whole, delta) = (shop.snapshot(None).unwrap(), shop.snapshot(Some(0)).unwrap());
    let before = texts(&whole);
    shop.change(|shop| {
        *shop.orders.get_mut("a").unwrap() = 9;
        shop.orders.insert("b".into(), 9);
        *shop.total = 9;
    });
    assert_eq!(texts(&whole), before);
    assert_eq!(texts(&delta)["table.orders"], "[\"a\",1]\n");
}

#[test]
fn base_and_deltas_make_the_same_state_in_another_worker() {
    let (source, target) = (Tracked::new(Shop::default()), Tracked::new(Shop::default()));
    put(&source, "a", 1);
    let mut captured = source.snapshot(None).unwrap();
    target.stage(&imported(&captured), None, false).unwrap()(captured.seq);
    for round in 0..50_u64 {
        source.change(|shop| {
            shop.orders.insert(format!("k{}", round % 7), round);
            shop.orders.remove(&format!("k{}", (round * 3) % 7));
            *shop.total = 100 + round;
        });
        if round % 10 == 0 {
            source.change(|shop| shop.picture.set(vec![Bytes::from(vec![round as u8; 3])]));
        }
        let delta = source.snapshot(Some(captured.seq)).unwrap();
        assert_eq!(delta.since, Some(captured.seq));
        target.stage(&imported(&delta), delta.since, false).unwrap()(delta.seq);
        captured = delta;
        assert_eq!(target.seq(), source.seq());
        assert_eq!(target.read(Shop::clone), source.read(Shop::clone), "round {round}");
    }
    // The target can tell deltas from where it was given one, as the source can.
    put(&target, "late", 1);
    let delta = target.snapshot(Some(captured.seq)).unwrap();
    assert_eq!(texts(&delta)["table.orders"], "[\"late\",1]\n");
}

#[test]
fn numbers_that_a_state_does_not_know_get_a_whole_state() {
    let shop = Tracked::new(Shop::default());
    put(&shop, "a", 1);
    assert_eq!(shop.snapshot(Some(7)).unwrap().since, None, "from the future");
    let whole = shop.snapshot(None).unwrap();
    let other = Tracked::new(Shop::default());
    other.stage(&imported(&whole), None, false).unwrap()(40);
    assert_eq!(other.snapshot(Some(39)).unwrap().since, None, "from before it came in");
    assert_eq!(other.snapshot(Some(40)).unwrap().since, Some(40));
    other.renew();
    assert_eq!((other.seq(), other.snapshot(Some(40)).unwrap().since), (41, None), "another code's");
}

#[test]
fn what_is_gone_is_forgotten_in_time_and_then_a_delta_is_a_whole_state() {
    let shop = Tracked::new(Shop::default());
    put(&shop, "stays", 1);
    for n in 0..5000 {
        put(&shop, &format!("k{n}"), n);
        shop.change(|shop| shop.orders.remove(&format!("k{n}")));
    }
    assert_eq!(shop.read(|shop| shop.orders.len()), 1);
    assert_eq!(shop.snapshot(Some(1)).unwrap().since, None);
    let recent = shop.seq() - 10;
    assert_eq!(shop.snapshot(Some(recent)).unwrap().since, Some(recent));
    let lines = texts(&shop.snapshot(Some(recent)).unwrap())["table.orders"].lines().count();
    assert_eq!(lines, 5, "each row once, however often it changed");
}

#[test]
fn a_state_that_is_refused_changes_nothing_and_names_its_part() {
    let shop = Tracked::new(Shop::default());
    put(&shop, "a", 1);
    let whole = imported(&shop.snapshot(None).unwrap());
    let with = |name: &str, bytes: &'static [u8]| {
        let mut state = imported(&shop.snapshot(None).unwrap());
        state.set(Part::new(name, Bytes::from_static(bytes)).unwrap());
        refusal(&shop, &state, None)
    };
    assert_eq!(with("state", b"12x"), "part `state`: is not as this version writes it, at line 1, column 3");
    assert!(with("table.orders", b"[\"a\",1]\n[\"b\"]\n").contains("`table.orders`: line 2: a row without"));
    assert!(with("table.orders", b"[\"a\",1]\n[\"a\",2]\n").contains("a second row"));
    assert!(with("table.orders", b"[\"a\",1]").contains("cut short"));
    assert!(with("table.orders", b"\xFF\n").contains("line 1"));
    assert!(with("table.more", b"").contains("`table.more` is not one of"));
    assert_eq!(with("state", b"13"), "unlucky");
    let mut fewer = imported(&shop.snapshot(None).unwrap());
    assert!(fewer.remove("picture") && !fewer.remove("picture"));
    assert!(refusal(&shop, &fewer, None).contains("`picture`: is missing"));
    assert!(shop.stage(&whole, None, false).is_ok(), "a trial that is not carried out");
    assert_eq!((shop.seq(), shop.read(|shop| shop.orders.len())), (1, 1));
}

#[test]
fn two_states_are_merged_as_the_worker_says() {
    let (mine, other) = (Tracked::new(Shop::default()), Tracked::new(Shop::default()));
    mine.change(|shop| *shop.total = 2);
    other.change(|shop| *shop.total = 5);
    let state = imported(&other.snapshot(None).unwrap());
    mine.stage(&state, None, true).unwrap()(9);
    assert_eq!((*mine.read(|shop| shop.total.clone()), mine.seq()), (7, 9));
}

#[test]
fn large_tables_are_written_in_pieces_and_read_back_however_they_are_cut() {
    let rows = (0..30_000_u64).map(|n| (format!("key-{n}"), n));
    let shop = Tracked::new(Shop { orders: rows.collect(), ..Shop::default() });
    let whole = shop.snapshot(None).unwrap();
    let mut state = imported(&whole);
    let table = bytes(&whole.parts[1]);
    let pieces: Vec<_> = whole.parts[1].source().pieces().map(|piece| piece.unwrap().len()).collect();
    assert!(pieces.len() == table.len().div_ceil(PIECE).max(1), "{pieces:?}");
    state.set(
        Part::new("table.orders", table.chunks(777).map(Bytes::copy_from_slice).collect::<Vec<_>>()).unwrap(),
    );
    let other = Tracked::new(Shop::default());
    other.stage(&state, None, false).unwrap()(whole.seq);
    assert_eq!(other.read(Shop::clone), shop.read(Shop::clone));
    assert_eq!(rows_of::<String, u64>(whole.parts[1].source().as_ref()).unwrap().len(), 30_000);
}

#[test]
fn a_copy_shares_its_rows_until_one_side_changes() {
    let mut table: Table<u32, Vec<u8>> = (0..10).map(|n| (n, vec![n as u8; 100])).collect();
    let copy = table.clone();
    assert!(std::ptr::eq(table.get(&3).unwrap(), copy.get(&3).unwrap()));
    table.get_mut(&3).unwrap()[0] = 99;
    assert_eq!((copy.get(&3).unwrap()[0], table.get(&3).unwrap()[0]), (3, 99));
    assert!(std::ptr::eq(table.get(&4).unwrap(), copy.get(&4).unwrap()));
    table.clear();
    assert!(table.is_empty() && copy.len() == 10 && table.get_mut(&3).is_none());
}
