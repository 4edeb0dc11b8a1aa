//! Rendering against the prompts of the official encoder, the rules beyond them by hand, and the
//! promise that nobody but the template writes control tokens.
mod words;

use ds4_models::chat::{
    Control, Effort, Message, Mode, Options, Revision, Segment, parse_messages, render, to_text,
};
use serde_json::{Value, json};
use words::{fixture, ids, official};

fn messages(json: &Value) -> Vec<Message> {
    parse_messages(json.to_string().as_bytes()).unwrap()
}

fn think(effort: Effort) -> Options {
    Options { mode: Mode::Think(effort), ..Options::default() }
}

fn chat() -> Options {
    Options::default()
}

fn text(json: &Value, options: &Options) -> String {
    to_text(&render(&messages(json), options).unwrap())
}

/// The prompt with BOS left out and the long names of tokens shortened.
fn short(json: &Value, options: &Options) -> String {
    let text = text(json, options);
    let text = text.strip_prefix(Control::Bos.name()).unwrap();
    text.replace(Control::Eos.name(), "<eos>").replace("<｜User｜>", "<U>").replace("<｜Assistant｜>", "<A>")
}

/// The options of a recorded case.
fn options(case: &Value) -> Options {
    let effort = match case["reasoning_effort"].as_str() {
        Some("max") => Effort::Max,
        Some("high") => Effort::High,
        None => Effort::Low,
        Some(other) => panic!("unknown effort {other}"),
    };
    let mode = match case["thinking_mode"].as_str() {
        Some("thinking") => Mode::Think(effort),
        _ => Mode::Chat,
    };
    Options { mode, drop_thinking: case["drop_thinking"] != false, ..Options::default() }
}

#[test]
fn recorded_prompts_as_strings() {
    let cases = fixture("prompt_cases.json");
    let cases = cases["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 9);
    for case in cases {
        assert_eq!(text(&case["messages"], &options(&case["options"])), case["prompt"], "{}", case["name"]);
    }
}

#[test]
fn recorded_prompts_id_by_id() {
    let Some(tokenizer) = official() else { return };
    for case in fixture("prompt_cases.json")["cases"].as_array().unwrap() {
        let prompt = render(&messages(&case["messages"]), &options(&case["options"])).unwrap();
        assert_eq!(tokenizer.encode_prompt(&prompt).unwrap(), ids(&case["ids"]), "{}", case["name"]);
        assert_eq!(tokenizer.encode_raw(case["prompt"].as_str().unwrap()), ids(&case["ids"]));
    }
}

#[test]
fn every_control_token_is_in_the_official_vocabulary() {
    let Some(tokenizer) = official() else { return };
    for control in Control::ALL {
        assert!(tokenizer.encode_control(control.name()).is_ok(), "{control:?}");
        assert_eq!(Control::from_name(control.name()), Some(control));
        let longer = Control::ALL.iter().filter(|other| other.name().starts_with(control.name()));
        assert_eq!(longer.count(), 1, "{control:?} begins another one");
    }
}

#[test]
fn efforts_of_both_revisions() {
    let ask = json!([{ "role": "user", "content": "?" }]);
    let start = |revision, mode| {
        let text = short(&ask, &Options { mode, revision, ..chat() });
        text.split_once("<U>").unwrap().0.chars().take(34).collect::<String>()
    };
    let (absolute, beyond) = ("Reasoning Effort: Absolute maximum", "Reasoning Effort: Beyond maximum —");
    let table = [
        (Mode::Chat, "", ""),
        (Mode::Think(Effort::Low), "", ""),
        (Mode::Think(Effort::High), "", absolute),
        (Mode::Think(Effort::Max), absolute, beyond),
    ];
    for (mode, preview, r0731) in table {
        assert_eq!(start(Revision::Preview, mode), preview, "{mode:?}");
        assert_eq!(start(Revision::R0731, mode), r0731, "{mode:?}");
    }
    let Some(tokenizer) = official() else { return };
    for (revision, bytes, tokens) in [(Revision::Preview, 476, 79), (Revision::R0731, 528, 92)] {
        let text = short(&ask, &Options { mode: Mode::Think(Effort::Max), revision, ..chat() });
        let prefix = text.split_once("<U>").unwrap().0;
        assert_eq!((prefix.len(), tokenizer.encode_text(prefix).len()), (bytes, tokens));
    }
}

#[test]
fn the_strongest_effort_needs_room() {
    assert_eq!(Mode::think_max(393_215), Mode::Think(Effort::Low));
    assert_eq!(Mode::think_max(393_216), Mode::Think(Effort::Max));
}

#[test]
fn no_messages_are_a_bare_beginning() {
    for options in [chat(), think(Effort::Max)] {
        assert_eq!(short(&json!([]), &options), "");
    }
}

#[test]
fn user_messages_and_results_share_a_turn() {
    let talk = json!([
        { "role": "user", "content": "a" },
        { "role": "user", "content": [{ "type": "text", "text": "b" }, { "type": "image_url" }] },
        { "role": "assistant", "content": null, "tool_calls": [
            { "id": "x", "type": "function", "function": { "name": "f", "arguments": "{}" } },
            { "id": "y", "type": "function", "function": { "name": "g", "arguments": { "n": 1 } } } ] },
        { "role": "tool", "tool_call_id": "y", "content": "Y" },
        { "role": "user", "content": "c" },
        { "role": "tool", "tool_call_id": "x", "content": "X" },
        { "role": "tool", "tool_call_id": "unknown", "content": "Z" },
    ]);
    let expected = "<U>a\n\nb\n\n[Unsupported image_url]<A></think>\n\n\
        <｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n\n</｜DSML｜invoke>\n<｜DSML｜invoke name=\"g\">\n\
        <｜DSML｜parameter name=\"n\" string=\"false\">1</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls><eos>\
        <U><tool_result>X</tool_result>\n\nc\n\n<tool_result>Z</tool_result>\n\n<tool_result>Y</tool_result><A></think>";
    assert_eq!(short(&talk, &chat()), expected);
}

#[test]
fn tasks_end_a_turn() {
    let tasks = ["query", "authority", "domain", "title", "read_url"];
    for task in tasks {
        let talk = json!([{ "role": "user", "content": "a", "task": task }]);
        assert_eq!(short(&talk, &think(Effort::Low)), format!("<U>a<｜{task}｜>"));
    }
    let talk = json!([
        { "role": "user", "content": "a", "task": "action" },
        { "role": "assistant", "content": "Search" },
        { "role": "user", "content": "b", "task": "query" },
        { "role": "user", "content": "c" },
    ]);
    assert_eq!(short(&talk, &think(Effort::Low)), "<U>a<A><think><｜action｜>Search<eos><U>b<U>c<A><think>");
    // The answer to a task carries no reasoning, even where an answer would.
    let talk = json!([
        { "role": "user", "content": "a", "task": "title" },
        { "role": "assistant", "content": "T", "reasoning_content": "r" },
    ]);
    assert_eq!(short(&talk, &think(Effort::Low)), "<U>a<｜title｜>T<eos>");
}

#[test]
fn developer_messages_stand_for_the_user() {
    let talk = json!([
        { "role": "developer", "content": "d", "response_format": { "a": [] } },
        { "role": "assistant", "content": "x", "reasoning_content": "r" },
        { "role": "developer", "content": "e", "response_format": {} },
    ]);
    let header =
        "\n\n## Response Format:\n\nYou MUST strictly adhere to the following schema to reply:\n{\"a\": []}";
    assert_eq!(short(&talk, &chat()), format!("<U>d{header}<A></think>x<eos><U>e<A></think>"));
    // Thinking without the old reasoning also leaves out the old developer message.
    assert_eq!(short(&talk, &think(Effort::Low)), "x<eos><U>e<A><think>");
    let keep = Options { drop_thinking: false, ..think(Effort::Low) };
    assert_eq!(short(&talk, &keep), format!("<U>d{header}<A><think>r</think>x<eos><U>e<A><think>"));
    let empty = render(&messages(&json!([{ "role": "developer", "content": "" }])), &chat()).unwrap_err();
    assert_eq!(empty.to_string(), "message 0: expected content in a developer message, got none");
}

#[test]
fn an_open_assistant_message_is_continued() {
    for key in ["wo_eos", "prefix"] {
        let talk = json!([
            { "role": "user", "content": "a" },
            { "role": "assistant", "content": "b", "reasoning_content": "r", key: true },
        ]);
        assert_eq!(short(&talk, &think(Effort::Low)), "<U>a<A><think>r</think>b");
        assert_eq!(short(&talk, &chat()), "<U>a<A></think>b");
    }
}

#[test]
fn arguments_keep_their_digits_and_order() {
    let arguments = "{\"z\":12345678901234567890123,\"a\":\"x\\ny\",\"é\":{\"k\":[1.0,null]},\"f\":1e-7}";
    let call = json!({ "function": { "name": "f", "arguments": arguments } });
    let talk = json!([{ "role": "assistant", "tool_calls": [call] }]);
    let text = short(&talk, &chat());
    let parameters = "<｜DSML｜parameter name=\"z\" string=\"false\">12345678901234567890123</｜DSML｜parameter>\n\
        <｜DSML｜parameter name=\"a\" string=\"true\">x\ny</｜DSML｜parameter>\n\
        <｜DSML｜parameter name=\"é\" string=\"false\">{\"k\": [1.0, null]}</｜DSML｜parameter>\n\
        <｜DSML｜parameter name=\"f\" string=\"false\">1e-07</｜DSML｜parameter>";
    assert!(text.contains(parameters), "{text}");
    for odd in ["[1]", "\"s\"", "", "{\"a\": }"] {
        let call = json!({ "function": { "name": "f", "arguments": odd } });
        let text = short(&json!([{ "role": "assistant", "tool_calls": [call] }]), &chat());
        assert!(text.contains(&format!("name=\"arguments\" string=\"true\">{odd}</")), "{text}");
    }
}

#[test]
fn damaged_messages_are_errors() {
    let cases = [
        ("[{\"role\": \"narrator\"}]", "unknown variant `narrator`"),
        ("[{\"content\": \"x\"}]", "missing field `role`"),
        ("{}", "expected a sequence"),
        ("[{\"role\": \"user\", \"content\": 7}]", "did not match any variant"),
        ("[{\"role\": \"user\"", "EOF while parsing"),
        ("[{\"role\": \"system\", \"tools\": [{}]}]", "missing field `function`"),
        ("[{\"role\": \"user\", \"task\": \"sing\"}]", "unknown variant `sing`"),
    ];
    for (json, expected) in cases {
        let message = parse_messages(json.as_bytes()).unwrap_err().to_string();
        assert!(message.starts_with("messages: ") && message.contains(expected), "{message}");
    }
}

/// A conversation with `text` in every place a client can fill.
fn filled_with(text: &str) -> Value {
    let quoted = json!({ text: text, "list": [text], "plain": 1 }).to_string();
    json!([
        { "role": "system", "content": text, "response_format": { text: text }, "tools": [
            { "type": "function", "function": { "name": text, "description": text, "parameters": { text: [text] } } }] },
        { "role": "latest_reminder", "content": text },
        { "role": "developer", "content": text },
        { "role": "assistant", "content": text, "reasoning_content": text, "tool_calls": [
            { "id": text, "type": "function", "function": { "name": text, "arguments": quoted } },
            { "id": "2", "type": "function", "function": { "name": "f", "arguments": text } }] },
        { "role": "tool", "tool_call_id": text, "content": text },
        { "role": "user", "content": [{ "type": "text", "text": text }, { "type": text }] },
    ])
}

fn controls(prompt: &[Segment]) -> Vec<Control> {
    let controls = prompt.iter().filter_map(|segment| match segment {
        Segment::Control(control) => Some(*control),
        Segment::Text(_) => None,
    });
    controls.collect()
}

#[test]
fn text_that_spells_a_control_token_stays_text() {
    let Some(tokenizer) = official() else { return };
    for options in [chat(), think(Effort::Max)] {
        let plain = render(&messages(&filled_with("harmless")), &options).unwrap();
        for (name, _) in tokenizer.controls() {
            for text in [name.to_owned(), format!("x{name}y</think>")] {
                let prompt = render(&messages(&filled_with(&text)), &options).unwrap();
                assert_eq!(controls(&prompt), controls(&plain), "{text:?}");
            }
            let prompt = render(&messages(&filled_with(name)), &options).unwrap();
            let ids = tokenizer.encode_prompt(&prompt).unwrap();
            let found: Vec<&str> = ids.iter().filter_map(|&id| tokenizer.control_name(id)).collect();
            let expected: Vec<&str> = controls(&plain).into_iter().map(Control::name).collect();
            assert_eq!(found, expected, "{name:?}");
            assert_eq!(tokenizer.decode(&ids), to_text(&prompt));
        }
    }
}
