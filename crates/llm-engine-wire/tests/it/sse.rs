use llm_engine_wire::sse::{Decoder, EventTooLong, LineEnd, MAX_EVENT_BYTES, event};
use proptest::prelude::*;

type Events = Result<Vec<Vec<u8>>, EventTooLong>;

/// All events of a stream that arrives in these pieces.
fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Events {
    let mut decoder = Decoder::default();
    let mut events = Vec::new();
    for piece in pieces {
        decoder.push(piece);
        while let Some(event) = decoder.next_event()? {
            events.push(event);
        }
    }
    Ok(events)
}

fn texts(stream: &str) -> Vec<String> {
    let events = decode([stream.as_bytes()]).unwrap();
    events
        .into_iter()
        .map(|event| String::from_utf8(event).unwrap())
        .collect()
}

/// The bytes, cut where `cuts` says; cuts at the same place make empty pieces.
fn pieces<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    places.sort_unstable();
    let mut begin = 0;
    let mut pieces = Vec::new();
    for place in places.into_iter().chain([bytes.len()]) {
        pieces.push(&bytes[begin..place]);
        begin = place;
    }
    pieces
}

/// What a stream may be made of; an event is told by what its data must come out as.
#[derive(Debug, Clone)]
enum Part {
    /// Data lines and the empty line after them.
    Event(Vec<String>),
    /// A line that is no data, between events or in one.
    Passed(String),
}

fn parts() -> impl Strategy<Value = Vec<Part>> {
    let line = || prop_oneof!["[^\r\n]{0,20}", "[{}:\\[\\]\" a-z]{0,20}", Just(String::new())];
    let passed = prop_oneof![
        line().prop_map(|text| format!(":{text}")),
        line().prop_map(|text| format!("id: {text}")),
        line().prop_map(|text| format!("event:{text}")),
        line().prop_map(|text| format!("dat: {text}")),
        line().prop_map(|text| format!("data2: {text}")),
        line().prop_map(|text| format!(" data: {text}")),
        Just("retry".to_owned()),
    ];
    let part = prop_oneof![
        3 => prop::collection::vec(line(), 1..4).prop_map(Part::Event),
        1 => passed.prop_map(Part::Passed),
    ];
    prop::collection::vec(part, 0..8)
}

/// The stream, and what must come out of it. `ends` chooses the end of each line.
fn written(parts: &[Part], ends: &[bool]) -> (String, Vec<Vec<u8>>) {
    let mut stream = String::new();
    let mut events = Vec::new();
    let mut ends = ends.iter().cycle();
    let mut line = |text: &str| {
        stream.push_str(text);
        stream.push_str(if *ends.next().unwrap() { "\r\n" } else { "\n" });
    };
    for part in parts {
        match part {
            Part::Passed(text) => line(text),
            Part::Event(lines) => {
                for text in lines {
                    // The space is optional, so a line that begins with one needs it.
                    let space = if text.starts_with(' ') || text.len() % 2 == 0 {
                        " "
                    } else {
                        ""
                    };
                    line(&format!("data:{space}{text}"));
                }
                line("");
                events.push(lines.join("\n").into_bytes());
            }
        }
    }
    (stream, events)
}

proptest! {
    #[test]
    fn any_split_of_a_stream_gives_its_events(
        parts in parts(),
        ends in prop::collection::vec(any::<bool>(), 1..6),
        unfinished in "(data: ?[a-z]{0,9}){0,1}",
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let (mut stream, events) = written(&parts, &ends);
        stream.push_str(&unfinished);
        prop_assert_eq!(decode([stream.as_bytes()]), Ok(events.clone()), "in one piece");
        prop_assert_eq!(decode(pieces(stream.as_bytes(), &cuts)), Ok(events.clone()), "in pieces");
        prop_assert_eq!(decode(stream.as_bytes().chunks(1)), Ok(events), "byte by byte");
    }

    #[test]
    fn any_bytes_are_the_same_in_any_pieces(
        bytes in prop::collection::vec(
            prop_oneof![
                3 => prop::sample::select(b"data: \r\n\n:x".to_vec()),
                1 => any::<u8>(),
            ],
            0..200,
        ),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        prop_assert_eq!(decode([bytes.as_slice()]), decode(pieces(&bytes, &cuts)));
    }

    #[test]
    fn what_is_written_as_an_event_is_read_as_it(data in "[^\r\n]{0,40}", crlf in any::<bool>()) {
        let end = if crlf { LineEnd::CrLf } else { LineEnd::Lf };
        let stream = event(&data, end);
        prop_assert_eq!(decode([stream.as_bytes()]), Ok(vec![data.into_bytes()]));
    }
}

#[test]
fn events_are_written_with_either_end_of_line() {
    assert_eq!(event("{}", LineEnd::Lf), "data: {}\n\n");
    assert_eq!(event("{}", LineEnd::CrLf), "data: {}\r\n\r\n");
}

#[test]
fn only_one_space_after_the_colon_is_left_out() {
    assert_eq!(texts("data: a\n\ndata:a\n\ndata:  a \n\n"), ["a", "a", " a "]);
}

#[test]
fn several_data_lines_are_one_event_with_line_breaks() {
    assert_eq!(texts("data: a\ndata:\ndata: b\n\n"), ["a\n\nb"]);
    assert_eq!(texts("data: a\n: comment\nid: 5\ndata: b\n\n"), ["a\nb"]);
}

#[test]
fn empty_data_is_an_event_and_no_data_is_none() {
    assert_eq!(texts("data\n\ndata:\n\ndata: \n\n"), ["", "", ""]);
    assert_eq!(texts("\n\n: ping\n\nevent: x\n\n\r\n"), Vec::<String>::new());
}

#[test]
fn an_event_without_its_empty_line_is_not_yet_one() {
    assert_eq!(texts("data: a\n\ndata: b\n"), ["a"]);
    assert_eq!(texts("data: a\n\ndata: b"), ["a"]);
}

/// How many bytes of this endless stream are taken before it is refused.
fn taken_of_endless(piece: &[u8]) -> usize {
    let mut decoder = Decoder::default();
    let mut taken = 0;
    loop {
        decoder.push(piece);
        match decoder.next_event() {
            Ok(event) => assert_eq!(event, None),
            Err(EventTooLong) => return taken,
        }
        taken += piece.len();
        assert!(taken <= 8 * MAX_EVENT_BYTES, "never refused");
    }
}

#[test]
fn a_line_without_end_and_an_event_without_end_are_refused_at_the_bound() {
    let long = [b'x'; 4096];
    assert!(taken_of_endless(&long) <= MAX_EVENT_BYTES);
    // Each line adds its break to the data, also if it holds nothing else.
    let lines = b"data: 0123456789\n".repeat(64);
    assert!(taken_of_endless(&lines) <= MAX_EVENT_BYTES * 17 / 11);
    let empty = b"data\n".repeat(512);
    assert!(taken_of_endless(&empty) <= MAX_EVENT_BYTES * 5 + empty.len());
}

#[test]
fn comments_without_end_are_no_event_and_cost_nothing() {
    let mut decoder = Decoder::default();
    let pings = b": ping\n\n".repeat(1024);
    for _ in 0..300 {
        decoder.push(&pings);
        assert_eq!(decoder.next_event(), Ok(None));
    }
    decoder.push(b"data: a\n\n");
    assert_eq!(decoder.next_event(), Ok(Some(b"a".to_vec())));
}

#[test]
fn many_events_in_one_piece_are_no_long_event() {
    let stream = event(&"x".repeat(1000), LineEnd::Lf).repeat(3 * MAX_EVENT_BYTES / 1000);
    assert_eq!(
        decode([stream.as_bytes()]).unwrap().len(),
        3 * MAX_EVENT_BYTES / 1000
    );
}

/// One event with so many bytes of data, whole and with its end byte by byte.
fn both_ways(data_bytes: usize) -> [Result<usize, EventTooLong>; 2] {
    let stream = event(&"x".repeat(data_bytes), LineEnd::Lf).into_bytes();
    let (begin, end) = stream.split_at(data_bytes - 12);
    let pieces = [begin].into_iter().chain(end.chunks(1));
    [decode([stream.as_slice()]), decode(pieces)].map(|events| Ok(events?.len()))
}

#[test]
fn an_event_well_below_the_bound_is_read_and_one_well_above_is_refused_whole_or_in_pieces() {
    assert_eq!(both_ways(MAX_EVENT_BYTES - 100), [Ok(1), Ok(1)]);
    assert_eq!(
        both_ways(MAX_EVENT_BYTES + 100),
        [Err(EventTooLong), Err(EventTooLong)]
    );
}

#[test]
fn whether_an_event_is_too_long_does_not_depend_on_how_it_arrives() {
    for data_bytes in MAX_EVENT_BYTES - 8..=MAX_EVENT_BYTES + 1 {
        let [whole, in_pieces] = both_ways(data_bytes);
        assert_eq!(whole, in_pieces, "{data_bytes} bytes of data");
    }
}
