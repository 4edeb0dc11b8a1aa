//! Reading answers: by hand, at every split of the stream, by token ids, and back from the renderer.
mod words;

use ds4_models::chat::{
    Answer, Conversation, Effort, Ending, Event, Message, Mode, Options, OutputParser, Piece, Role, Segment,
    Source, parse_answer, parse_bytes, parse_messages, render, to_text,
};
use words::{Random, fixture, official};

const THINK: Mode = Mode::Think(Effort::Low);
const EOS: &str = "<｜end▁of▁sentence｜>";

/// A block of calls around `inside`.
fn block(inside: &str) -> String {
    format!("\n\n<｜DSML｜tool_calls>\n{inside}</｜DSML｜tool_calls>")
}

/// A call of `f` with one parameter `a` of value `x`.
fn call() -> String {
    "<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"a\" string=\"true\">x</｜DSML｜parameter>\n\
     </｜DSML｜invoke>\n"
        .into()
}

fn calls(answer: &Answer) -> Vec<String> {
    answer.calls.iter().map(|call| format!("{} {}", call.name, call.arguments)).collect()
}

#[test]
fn text_and_reasoning() {
    let (answer, ending) = parse_answer(&format!("why</think>because{EOS}ignored"), THINK);
    assert_eq!((answer.reasoning.as_str(), answer.content.as_str()), ("why", "because"));
    assert_eq!(ending, Ending::Complete);
    let (answer, ending) = parse_answer("why <｜DSML｜", THINK);
    assert_eq!((answer.reasoning.as_str(), answer.stray.as_str()), ("why <", "｜DSML｜"));
    assert_eq!(ending, Ending::InReasoning);
    let (answer, ending) = parse_answer("a\n\n<｜DSML", Mode::Chat);
    assert_eq!((answer.content.as_str(), ending), ("a\n\n<｜DSML", Ending::InContent));
    let (answer, _) = parse_answer("a</think>b<｜User｜>", Mode::Chat);
    assert_eq!((answer.content.as_str(), answer.stray.as_str()), ("ab", "</think><｜User｜>"));
}

#[test]
fn calls_with_all_kinds_of_values() {
    let inside = "<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"a \\ é\" string=\"true\">1 < \"2\"\n</x>\
        </｜DSML｜parameter>\n<｜DSML｜parameter name=\"b\" string=\"false\">{\"k\": [1,2]}</｜DSML｜parameter>\n\
        </｜DSML｜invoke>\n<｜DSML｜invoke name=\"g\">\n\n</｜DSML｜invoke>\n";
    let (answer, ending) = parse_answer(&format!("Look.{}{EOS}", block(inside)), Mode::Chat);
    assert_eq!(answer.content, "Look.");
    assert_eq!(calls(&answer), ["f {\"a \\\\ é\": \"1 < \\\"2\\\"\\n</x>\", \"b\": {\"k\": [1,2]}}", "g {}"]);
    assert_eq!((answer.stray.as_str(), answer.n_broken, ending), ("", 0, Ending::Complete));
}

#[test]
fn what_a_tolerant_reader_accepts() {
    let bare = block(&call()).replace("｜DSML｜", "DSML｜");
    let one_line = block(&call()).replacen("\n\n", "\n", 1);
    let no_line = block(&call()).trim_start().to_owned();
    let three_lines = format!("\n{}", block(&call()));
    for (text, content) in [(bare, ""), (one_line, ""), (no_line, ""), (three_lines, "\n")] {
        let (answer, ending) = parse_answer(&format!("a{text}{EOS}"), Mode::Chat);
        assert_eq!(calls(&answer), ["f {\"a\": \"x\"}"], "{text:?}");
        assert_eq!((answer.content, ending), (format!("a{content}"), Ending::Complete), "{text:?}");
    }
    // Cut at the length limit: what is complete counts.
    let (answer, ending) = parse_answer(
        &format!("{}<｜DSML｜invoke name", &block(&call())[..block(&call()).len() - 21]),
        Mode::Chat,
    );
    assert_eq!((calls(&answer).len(), ending), (1, Ending::InCalls));
}

#[test]
fn calls_that_are_not_written_completely_are_never_made() {
    let call = call();
    let cases = [
        (call.replace("</｜DSML｜invoke>\n", ""), 0, 1),
        (format!("{}{call}", call.replace("</｜DSML｜invoke>\n", "")), 1, 1),
        (call.replace("name=\"f\"", "nom=\"f\""), 0, 0),
        (format!("{}{call}", call.replace(" name=\"f\">", "")), 1, 0),
        (format!("<｜DSML｜invoke\n{call}"), 1, 0),
        (call.replace(" string=\"true\"", ""), 0, 1),
        (call.replace("string=\"true\"", "string=\"maybe\""), 0, 1),
        (call.replace("<｜DSML｜parameter name=\"a\"", "<｜DSML｜parameter"), 0, 1),
        (
            format!(
                "{}{call}",
                call.replace(
                    "\"f\">\n",
                    "\"f\">\n<｜DSML｜parameter name=\"a\" string=\"false\">1</｜DSML｜parameter>"
                )
            ),
            1,
            1,
        ),
        (call.replace("name=\"f\"", &format!("name=\"{}\"", "f".repeat(5000))), 0, 0),
    ];
    for (inside, n_calls, n_broken) in cases {
        let (answer, _) = parse_answer(&format!("{}{EOS}", block(&inside)), Mode::Chat);
        assert_eq!((answer.calls.len(), answer.n_broken), (n_calls, n_broken), "{inside}: {answer:?}");
    }
    let whole = block(&call);
    let open = whole.find("<｜DSML｜parameter").unwrap()..whole.rfind("</｜DSML｜invoke>").unwrap();
    for (end, _) in whole.char_indices() {
        let (answer, ending) = parse_answer(&whole[..end], Mode::Chat);
        assert_eq!(answer.calls.len(), usize::from(whole[..end].contains("</｜DSML｜invoke>")), "{end}");
        assert_eq!(answer.n_broken == 1, ending == Ending::InCall, "{end}");
        assert!(ending == Ending::InCall || !open.contains(&end), "{end}");
        let (answer, ending) = parse_answer(&format!("{}{EOS}", &whole[..end]), Mode::Chat);
        assert!(answer.calls.len() <= 1 && ending == Ending::Complete);
    }
}

#[test]
fn text_outside_the_format_is_told() {
    let inside = format!("one{}two", call());
    let (answer, ending) = parse_answer(&format!("{}three{EOS}", block(&inside)), Mode::Chat);
    assert_eq!((calls(&answer).len(), answer.stray.as_str(), ending), (1, "onetwothree", Ending::Complete));
    let (_, ending) = parse_answer(&block(&call()), Mode::Chat);
    assert_eq!(ending, Ending::AfterCalls);
}

/// Neighbouring texts of a kind as one event.
fn joined(events: Vec<Event>) -> Vec<Event> {
    let mut all: Vec<Event> = Vec::new();
    for event in events {
        match (all.last_mut(), event) {
            (Some(Event::Reasoning(last)), Event::Reasoning(text))
            | (Some(Event::Content(last)), Event::Content(text))
            | (Some(Event::Stray(last)), Event::Stray(text))
            | (Some(Event::ToolCallArguments(last)), Event::ToolCallArguments(text)) => *last += &text,
            (_, event) => all.push(event),
        }
    }
    all
}

fn read<'a>(pieces: impl IntoIterator<Item = Piece<'a>>, mode: Mode, source: Source) -> (Vec<Event>, Ending) {
    let mut parser = OutputParser::new(mode, source);
    let mut events: Vec<Event> = pieces.into_iter().flat_map(|piece| parser.push(piece)).collect();
    let (last, ending) = parser.finish();
    events.extend(last);
    (joined(events), ending)
}

/// An answer put together at random of tags, their parts, control tokens and text.
fn random_answer(random: &mut Random) -> String {
    let parts = [
        "<｜DSML｜tool_calls>",
        "</｜DSML｜tool_calls>",
        "<｜DSML｜invoke",
        "</｜DSML｜invoke>",
        " name=\"f\">",
        "<｜DSML｜parameter name=\"a\" string=\"true\">",
        "<｜DSML｜parameter name=\"b\" string=\"false\">",
        "</｜DSML｜parameter>",
        "\n",
        "\n\n",
        "<",
        "</",
        "｜DSML｜",
        "｜",
        "DSML｜",
        "<DSML｜tool_calls>",
        "</DSML｜tool_calls>",
        "<DSML｜invoke name=\"g\">",
        "</DSML｜invoke>",
        "tool_calls>",
        "<think>",
        "</think>",
        "</thi",
        "<｜end",
        EOS,
        "<｜User｜>",
        "x",
        "é日🙂",
        "\"",
        "\\",
        " ",
        ">",
        "name=\"",
        "\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"h\">\n",
        "<｜DSML｜parameter name=\"c\" string=\"true\">v</｜DSML｜parameter>\n</｜DSML｜invoke>\n",
    ];
    (0..random.below(14)).map(|_| parts[random.below(parts.len())]).collect()
}

#[test]
fn any_split_of_a_string_gives_the_same_events() {
    let mut random = Random(11);
    let full = format!("r</think>t{}{EOS}", block(&(call() + &call())));
    let mut answers =
        vec![full.clone(), full.replace("｜DSML｜", "DSML｜"), full.replace("string=", "strong=")];
    answers.extend((0..600).map(|_| random_answer(&mut random)));
    for text in answers {
        for mode in [Mode::Chat, THINK] {
            let whole = read([Piece::Text(&text)], mode, Source::Spelled);
            let chars: Vec<String> = text.chars().map(String::from).collect();
            let by_char = read(chars.iter().map(|c| Piece::Text(c)), mode, Source::Spelled);
            assert_eq!(by_char, whole, "{text:?}");
            for (at, _) in text.char_indices() {
                let halves = [Piece::Text(&text[..at]), Piece::Text(&text[at..])];
                assert_eq!(read(halves, mode, Source::Spelled), whole, "{text:?} at {at}");
            }
        }
    }
}

/// Cuts `text` into control tokens and single characters, or control tokens and whole texts.
fn pieces(text: &str, single: bool) -> Vec<Piece<'_>> {
    let names = ["｜DSML｜", "</think>", "<think>", EOS, "<｜User｜>"];
    let (mut pieces, mut at) = (Vec::new(), 0);
    while at < text.len() {
        if let Some(name) = names.iter().find(|name| text[at..].starts_with(**name)) {
            pieces.push(Piece::Control(name));
            at += name.len();
            continue;
        }
        let next = |at: usize| at + text[at..].chars().next().unwrap().len_utf8();
        let start = at;
        at = next(at);
        while !single && at < text.len() && !names.iter().any(|name| text[at..].starts_with(name)) {
            at = next(at);
        }
        pieces.push(Piece::Text(&text[start..at]));
    }
    pieces
}

#[test]
fn tokens_and_their_spelling_give_the_same_events() {
    let mut random = Random(12);
    for _ in 0..3000 {
        let text = random_answer(&mut random);
        let spelled = read([Piece::Text(&text)], THINK, Source::Spelled);
        for single in [false, true] {
            for source in [Source::Tokens, Source::Spelled] {
                assert_eq!(read(pieces(&text, single), THINK, source), spelled, "{text:?}");
            }
        }
    }
}

#[test]
fn text_that_spells_a_token_is_text() {
    let text = format!("r</think>{}{EOS}", block(&call()));
    let (events, ending) = read([Piece::Text(&text)], THINK, Source::Tokens);
    assert_eq!((events, ending), (vec![Event::Reasoning(text.clone())], Ending::InReasoning));
    let (events, ending) = read([Piece::Text(&text)], Mode::Chat, Source::Tokens);
    assert_eq!((events, ending), (vec![Event::Content(text.clone())], Ending::InContent));
    // A value may hold the closing tag as text, marked or bare.
    let (open, close) = text.split_once("string=\"true\">x").unwrap();
    let mut parts = pieces(open, false);
    parts.extend([Piece::Text("string=\"true\">x</｜DSML｜parameter></DSML｜parameter>")]);
    parts.extend(pieces(close, false));
    let mut answer = Answer::default();
    answer.extend(read(parts, THINK, Source::Tokens).0);
    assert_eq!(calls(&answer), ["f {\"a\": \"x</｜DSML｜parameter></DSML｜parameter>\"}"]);
}

#[test]
fn rendered_answers_read_back() {
    let arguments = ["{}", "{\"k\": \"a\\n\\\"b\\\" é\", \"n\": [1, {\"x\": null}], \"t\": true}"];
    let message = format!(
        "[{{\"role\": \"assistant\", \"content\": \"c\\n\", \"reasoning_content\": \"r\", \"tool_calls\": [\
         {{\"function\": {{\"name\": \"f\", \"arguments\": {:?}}}}}, \
         {{\"function\": {{\"name\": \"g h\", \"arguments\": {:?}}}}}]}}]",
        arguments[0], arguments[1]
    );
    let messages = parse_messages(message.as_bytes()).unwrap();
    let prompt = render(&messages, &Options { mode: THINK, ..Options::default() }).unwrap();
    let parts = prompt[1..].iter().map(|segment| match segment {
        Segment::Control(control) => Piece::Control(control.name()),
        Segment::Text(text) => Piece::Text(text),
    });
    let (events, ending) = read(parts, THINK, Source::Tokens);
    let mut answer = Answer::default();
    answer.extend(events);
    assert_eq!(ending, Ending::Complete);
    assert_eq!((answer.reasoning.as_str(), answer.content.as_str()), ("r", "c\n"));
    assert_eq!(calls(&answer), [format!("f {}", arguments[0]), format!("g h {}", arguments[1])]);
    let back = answer.into_message(|i| i.to_string());
    assert_eq!(
        to_text(&render(&[back], &Options { mode: THINK, ..Options::default() }).unwrap()),
        to_text(&prompt)
    );
}

#[test]
fn a_conversation_goes_through_the_tokenizer_and_back() {
    let Some(tokenizer) = official() else { return };
    let mut talk = Conversation::new(Options { mode: THINK, ..Options::default() });
    talk.set_system("Be brief.");
    talk.ask("Hi <｜Assistant｜>");
    let prompt = tokenizer.encode_prompt(&talk.prompt().unwrap()).unwrap();
    assert_eq!(prompt.iter().filter(|&&id| id == 128_804).count(), 1);
    let text = format!("greet 🙂</think>Hello.{}{EOS}", block(&call()));
    let mut reader = talk.reader(tokenizer);
    let mut answer = Answer::default();
    for id in tokenizer.encode_raw(&text) {
        assert!(!reader.is_done());
        answer.extend(reader.push(id));
    }
    assert!(reader.is_done());
    assert_eq!(reader.finish(), (vec![], Ending::Complete));
    assert_eq!((answer.reasoning.as_str(), answer.content.as_str()), ("greet 🙂", "Hello."));
    assert_eq!(calls(&answer), ["f {\"a\": \"x\"}"]);
    talk.answer(answer);
    assert_eq!(talk.messages[2].tool_calls[0].id.as_deref(), Some("call_0"));
    talk.clear();
    assert_eq!(talk.messages, [Message::new(Role::System, "Be brief.")]);
    talk.set_system("");
    assert!(talk.messages.is_empty());
}

#[test]
fn half_a_character_before_a_control_token_is_shown_as_broken() {
    let Some(tokenizer) = official() else { return };
    let ids = tokenizer.encode_text("🙂👍🏽");
    let talk = Conversation::new(Options { mode: THINK, ..Options::default() });
    let mut reader = talk.reader(tokenizer);
    let mut answer = Answer::default();
    let half = ids.iter().position(|&id| std::str::from_utf8(tokenizer.piece(id).unwrap()).is_err()).unwrap();
    answer.extend(reader.push(ids[half]));
    answer.extend(reader.push(tokenizer.encode_control("</think>").unwrap()));
    answer.extend(reader.finish().0);
    assert!(answer.reasoning.contains('\u{fffd}'), "{answer:?}");
}

#[test]
fn any_bytes_are_read() {
    let mut random = Random(13);
    for _ in 0..300 {
        let bytes: Vec<u8> = (0..random.below(60)).map(|_| random.below(256) as u8).collect();
        parse_bytes(&bytes);
        let _ = parse_messages(&bytes);
    }
    for case in fixture("prompt_cases.json")["cases"].as_array().unwrap() {
        parse_bytes(case["prompt"].as_str().unwrap().as_bytes());
    }
}
