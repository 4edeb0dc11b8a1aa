//! Messages to a prompt, as the official encoder does it (spec 5.2).
use super::error::ChatError;
use super::json::Json;
use super::message::{Call, Message, Role, Task, Tool, ToolCall};
use super::mode::Options;
use super::prepare::{self, Block, Turn};
use super::prompt::{Prompt, push_control, push_text};
use super::protocol::{Control, PROTOCOL};

/// Renders a conversation, up to the point where the assistant goes on.
pub fn render(messages: &[Message], options: &Options) -> Result<Prompt, ChatError> {
    let turns = prepare::prepare(messages, options)?;
    let keeps = prepare::keeps_reasoning(messages, options);
    let last_question = prepare::last_question(&turns);
    let mut prompt = Prompt::new();
    push_control(&mut prompt, Control::Bos);
    for (index, turn) in turns.iter().enumerate() {
        if index == 0 {
            push_text(&mut prompt, options.mode.prefix(options.revision).unwrap_or_default());
        }
        // With no question at all every turn comes after it.
        let is_current = last_question.is_none_or(|last| index >= last);
        let shows_reasoning = options.mode.thinks() && (keeps || is_current);
        let after_task = index > 0 && turns[index - 1].task().is_some();
        render_turn(&mut prompt, turn, shows_reasoning && !after_task);
        let next = turns.get(index + 1);
        if next.is_none_or(|next| next.is(Role::Assistant) || next.is(Role::LatestReminder)) {
            hand_over(&mut prompt, turn, options, shows_reasoning);
        }
    }
    Ok(prompt)
}

fn render_turn(prompt: &mut Prompt, turn: &Turn<'_>, shows_reasoning: bool) {
    let (message, reasoning) = match turn {
        Turn::User { blocks, .. } => return render_user(prompt, blocks),
        Turn::Other { message, reasoning } => (message, *reasoning),
    };
    match message.role {
        Role::System => render_instructions(prompt, message),
        Role::Developer => {
            push_control(prompt, Control::User);
            render_instructions(prompt, message);
        }
        Role::LatestReminder => {
            push_control(prompt, Control::LatestReminder);
            push_text(prompt, &message.text());
        }
        Role::Assistant => {
            if shows_reasoning {
                push_text(prompt, reasoning.unwrap_or_default());
                push_control(prompt, Control::ThinkEnd);
            }
            render_assistant(prompt, message);
        }
        Role::User | Role::Tool => unreachable!("folded into user turns"),
    }
}

fn render_user(prompt: &mut Prompt, blocks: &[Block]) {
    push_control(prompt, Control::User);
    for (index, block) in blocks.iter().enumerate() {
        push_text(prompt, if index == 0 { "" } else { "\n\n" });
        match block {
            Block::Text(text) => push_text(prompt, text),
            Block::Result { text, .. } => {
                push_text(prompt, "<tool_result>");
                push_text(prompt, text);
                push_text(prompt, "</tool_result>");
            }
        }
    }
}

/// Content, tools and response format of a system or developer message.
fn render_instructions(prompt: &mut Prompt, message: &Message) {
    push_text(prompt, &message.text());
    if !message.tools.is_empty() {
        push_text(prompt, "\n\n");
        render_tools(prompt, &message.tools);
    }
    if let Some(format) = message.response_format.as_ref().filter(|format| !format.is_falsy()) {
        push_text(prompt, "\n\n");
        fill(prompt, &PROTOCOL.strings.response_format_template, &format.to_string());
    }
}

/// The tool header with one line of JSON per tool.
fn render_tools(prompt: &mut Prompt, tools: &[Tool]) {
    let schemas: Vec<String> = tools.iter().map(|tool| tool.function.to_string()).collect();
    fill(prompt, &PROTOCOL.strings.tools_template, &schemas.join("\n"));
}

/// Writes a template; names of tokens in braces become control tokens, the others `insert` as text.
fn fill(prompt: &mut Prompt, template: &str, insert: &str) {
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        push_text(prompt, before);
        let (name, after) = after.split_once('}').expect("templates close their braces");
        match name {
            "dsml_token" => push_control(prompt, Control::Dsml),
            "thinking_start_token" => push_control(prompt, Control::ThinkStart),
            "thinking_end_token" => push_control(prompt, Control::ThinkEnd),
            "tool_schemas" | "schema" => push_text(prompt, insert),
            other => unreachable!("template names unknown placeholder {other}"),
        }
        rest = after;
    }
    push_text(prompt, rest);
}

/// Content, calls and end of an assistant message, without its reasoning.
fn render_assistant(prompt: &mut Prompt, message: &Message) {
    push_text(prompt, &message.text());
    if !message.tool_calls.is_empty() {
        push_text(prompt, "\n\n");
        render_calls(prompt, &message.tool_calls);
    }
    if !message.wo_eos {
        push_control(prompt, Control::Eos);
    }
}

fn render_calls(prompt: &mut Prompt, calls: &[ToolCall]) {
    open_tag(prompt, "tool_calls");
    push_text(prompt, ">\n");
    for call in calls {
        open_tag(prompt, "invoke");
        push_text(prompt, &format!(" name=\"{}\">\n", call.function.name));
        render_arguments(prompt, &call.function);
        push_text(prompt, "\n");
        close_tag(prompt, "invoke");
        push_text(prompt, "\n");
    }
    close_tag(prompt, "tool_calls");
}

/// One parameter per argument, joined by line ends; arguments that are no JSON object are one text.
fn render_arguments(prompt: &mut Prompt, call: &Call) {
    let arguments = match Json::parse(&call.arguments) {
        Ok(Json::Object(members)) => members,
        _ => vec![("arguments".to_owned(), Json::Text(call.arguments.clone()))],
    };
    for (index, (key, value)) in arguments.iter().enumerate() {
        push_text(prompt, if index == 0 { "" } else { "\n" });
        open_tag(prompt, "parameter");
        let (is_string, text) = match value {
            Json::Text(text) => ("true", text.clone()),
            other => ("false", other.to_string()),
        };
        push_text(prompt, &format!(" name=\"{key}\" string=\"{is_string}\">{text}"));
        close_tag(prompt, "parameter");
    }
}

/// `<｜DSML｜name`, without the bracket that closes it.
fn open_tag(prompt: &mut Prompt, name: &str) {
    push_text(prompt, "<");
    push_control(prompt, Control::Dsml);
    push_text(prompt, name);
}

fn close_tag(prompt: &mut Prompt, name: &str) {
    push_text(prompt, "</");
    push_control(prompt, Control::Dsml);
    push_text(prompt, name);
    push_text(prompt, ">");
}

/// What stands between a turn and the assistant or reminder that follows it, or the end.
fn hand_over(prompt: &mut Prompt, turn: &Turn<'_>, options: &Options, shows_reasoning: bool) {
    let think = |opens: bool| if opens { Control::ThinkStart } else { Control::ThinkEnd };
    match turn.task() {
        Some(Task::Action) => {
            push_control(prompt, Control::Assistant);
            push_control(prompt, think(options.mode.thinks()));
            push_control(prompt, Control::Task(Task::Action));
        }
        Some(task) => push_control(prompt, Control::Task(task)),
        None if turn.is_question() => {
            push_control(prompt, Control::Assistant);
            push_control(prompt, think(shows_reasoning));
        }
        None => {}
    }
}
