use proptest::prelude::*;

use super::AnswerText;

/// The answer when the bytes arrive in those pieces, and whether a stop sequence ended it.
fn answer<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
    stops: &[&str],
    include_stop: bool,
) -> (String, bool) {
    let stops = stops.iter().map(|&stop| stop.to_owned()).collect();
    let mut text = AnswerText::new(stops, include_stop);
    let mut released = String::new();
    for piece in pieces {
        if text.push(piece, &mut released) {
            return (released, true);
        }
    }
    text.finish(&mut released);
    (released, false)
}

fn cut(bytes: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
    let mut borders: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    borders.extend([0, bytes.len()]);
    borders.sort_unstable();
    borders
        .windows(2)
        .map(|pair| bytes[pair[0]..pair[1]].to_vec())
        .collect()
}

#[test]
fn a_character_is_held_back_until_it_is_complete() {
    let mut text = AnswerText::new(Vec::new(), false);
    let mut released = String::new();
    for byte in &"é€🦀".as_bytes()[..8] {
        text.push(&[*byte], &mut released);
    }
    assert_eq!(released, "é€");
    text.push(&"🦀".as_bytes()[3..], &mut released);
    assert_eq!(released, "é€🦀");
}

#[test]
fn what_is_incomplete_at_the_end_is_replaced() {
    assert_eq!(
        answer([&b"a\xF0\x9F"[..]], &[], false),
        ("a\u{FFFD}".to_owned(), false)
    );
}

#[test]
fn a_stop_sequence_is_found_across_pieces() {
    let pieces = || [&b"one EN"[..], b"D", b" two"];
    assert_eq!(answer(pieces(), &["END"], false), ("one ".to_owned(), true));
    assert_eq!(answer(pieces(), &["END"], true), ("one END".to_owned(), true));
}

#[test]
fn a_beginning_that_leads_nowhere_is_released() {
    assert_eq!(
        answer([&b"EN"[..], b"TER"], &["END"], false),
        ("ENTER".to_owned(), false)
    );
    assert_eq!(answer([&b"EN"[..]], &["END"], false), ("EN".to_owned(), false));
}

#[test]
fn nothing_is_released_that_a_stop_sequence_could_still_claim() {
    let mut text = AnswerText::new(vec!["abab!".to_owned()], false);
    let mut released = String::new();
    text.push(b"xabab", &mut released);
    assert_eq!(released, "x");
    text.push(b"ab", &mut released);
    assert_eq!(released, "xab");
    assert!(text.push(b"!", &mut released));
    assert_eq!(released, "xab");
}

#[test]
fn the_sequence_that_is_complete_first_wins() {
    assert_eq!(
        answer([&b"xabcd"[..]], &["abcd", "b"], false),
        ("xa".to_owned(), true)
    );
    assert_eq!(
        answer([&b"xabcd"[..]], &["b", "ab"], false),
        ("x".to_owned(), true)
    );
}

proptest! {
    #[test]
    fn any_bytes_in_any_pieces_give_the_lossy_text(
        bytes in prop::collection::vec(any::<u8>(), 0..60),
        cuts in prop::collection::vec(any::<usize>(), 0..10),
    ) {
        let pieces = cut(&bytes, &cuts);
        let (text, _) = answer(pieces.iter().map(Vec::as_slice), &[], false);
        prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn any_text_in_any_pieces_stops_at_the_same_place(
        text in "[abé€]{0,24}",
        stops in prop::collection::vec("[abé€]{1,4}", 1..4),
        cuts in prop::collection::vec(any::<usize>(), 0..12),
        include_stop: bool,
    ) {
        let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
        let whole = answer([text.as_bytes()], &stops, include_stop);
        let pieces = cut(text.as_bytes(), &cuts);
        let in_pieces = answer(pieces.iter().map(Vec::as_slice), &stops, include_stop);
        prop_assert_eq!(&in_pieces, &whole);
        let bytewise = answer(text.as_bytes().chunks(1), &stops, include_stop);
        prop_assert_eq!(&bytewise, &whole);
        prop_assert_eq!(whole.1, stops.iter().any(|stop| text.contains(stop)));
    }
}
