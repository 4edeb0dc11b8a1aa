//! Every `tests/filetests/**/*.ds4ir` is a test.
//!
//! `;! pass = NAME` says what is done with the text, functions or one module:
//! - `cat`: it verifies, and prints as the lines after `;> ` say;
//! - `parse`: it does not parse; the lines after `;> ` hold the error with its caret;
//! - `verify`: it parses, and has exactly the violations that comments `; error: text` tell, each on
//!   the line that defines the place at fault.
//!
//! A line `;---` parts a file into texts that are done one by one, each a `;! pass` of its own or
//! that of the text before it. `BLESS=1` rewrites the expected lines.
use ds4_ir::ops::ops;
use ds4_ir::{Func, Module, ParseError, VerifyError, parse_funcs, parse_module, verify, verify_module};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const PARTING: &str = ";---";

/// What a text holds.
enum Unit {
    Funcs(Vec<Func>),
    Module(Box<Module>),
}

impl Unit {
    fn parse(text: &str) -> Result<Unit, ParseError> {
        let first = text.lines().find(|l| !l.trim().is_empty() && !l.trim_start().starts_with(';'));
        if first.is_some_and(|l| l.starts_with("module")) {
            return Ok(Unit::Module(Box::new(parse_module(text)?)));
        }
        parse_funcs(text).map(Unit::Funcs)
    }

    fn errors(&self) -> Vec<VerifyError> {
        match self {
            Unit::Funcs(funcs) => funcs.iter().filter_map(|f| verify(f).err()).flatten().collect(),
            Unit::Module(module) => verify_module(module).err().unwrap_or_default(),
        }
    }

    fn print(&self) -> String {
        match self {
            Unit::Funcs(funcs) => funcs.iter().map(Func::to_string).collect::<Vec<_>>().join("\n"),
            Unit::Module(module) => module.to_string(),
        }
    }

    fn funcs(&self) -> &[Func] {
        match self {
            Unit::Funcs(funcs) => funcs,
            Unit::Module(module) => &module.funcs,
        }
    }
}

fn files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/filetests")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.extension() {
                None => folders.push(path),
                Some(e) if e == "ds4ir" => found.push(path),
                Some(_) => panic!("{}: expected a .ds4ir file", path.display()),
            }
        }
    }
    found.sort();
    found
}

/// The texts of a file with the pass of each.
fn texts(file: &str) -> Vec<(String, String)> {
    let mut pass = String::new();
    let part = |text: &str| {
        if let Some(named) = text.lines().find_map(|l| l.strip_prefix(";! pass = ")) {
            pass = named.to_string();
        }
        (pass.clone(), text.to_string())
    };
    file.split(&format!("{PARTING}\n")).map(part).collect()
}

fn bless() -> bool {
    std::env::var_os("BLESS").is_some_and(|v| v == "1")
}

#[test]
fn every_file_is_as_it_says() {
    let mut failures = Vec::new();
    for path in files() {
        let file = fs::read_to_string(&path).unwrap();
        let mut blessed = Vec::new();
        for (i, (pass, text)) in texts(&file).iter().enumerate() {
            let done = run(pass, text);
            if let Err(why) = &done {
                failures.push(format!("{} text {}: {why}", path.display(), i + 1));
            }
            blessed.push(done.unwrap_or_else(|_| text.clone()));
        }
        let blessed = blessed.join(&format!("{PARTING}\n"));
        if bless() {
            fs::write(&path, blessed).unwrap();
        } else if blessed != file {
            failures.push(format!("{}: expected\n{file}\ngot\n{blessed}", path.display()));
        }
    }
    assert!(failures.is_empty(), "\n{}\nBLESS=1 accepts what is printed", failures.join("\n"));
}

/// A text without its expected lines, which end it.
fn source(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|l| !l.starts_with(";>")).collect();
    lines.join("\n").trim_end().to_string() + "\n"
}

/// The text as it ought to be, its expected lines rewritten.
fn run(pass: &str, text: &str) -> Result<String, String> {
    let unit = Unit::parse(&source(text));
    match (pass, unit) {
        ("cat", Ok(unit)) => {
            if let [error, ..] = &unit.errors()[..] {
                return Err(error.to_string());
            }
            let printed = unit.print();
            let again = Unit::parse(&printed).map_err(|e| e.to_string())?;
            if again.print() != printed || again.funcs() != unit.funcs() {
                return Err("what is printed reads back as something else".to_string());
            }
            Ok(with_expected(text, &printed))
        }
        ("parse", Err(error)) => Ok(with_expected(text, &error.to_string())),
        ("parse", Ok(_)) => Err("parses".to_string()),
        ("verify", Ok(unit)) => match_errors(text, &unit.errors()).map(|()| text.to_string()),
        (_, Err(error)) => Err(error.to_string()),
        (pass, Ok(_)) => Err(format!("unknown pass `{pass}`")),
    }
}

/// `text` with `output` as its expected lines.
fn with_expected(text: &str, output: &str) -> String {
    let mut lines = vec![source(text)];
    lines.extend(output.lines().map(|l| format!(";> {l}").trim_end().to_string()));
    lines.join("\n") + "\n"
}

/// Fails unless every comment `; error: text` is met by one error at its line's place, and no error
/// is left.
fn match_errors(text: &str, errors: &[VerifyError]) -> Result<(), String> {
    let mut left: Vec<&VerifyError> = errors.iter().collect();
    let mut missing = Vec::new();
    for (places, wanted) in expectations(text) {
        let fits = |e: &&VerifyError| {
            let here =
                |p: &String| e.place == *p || p.strip_suffix('*').is_some_and(|p| e.place.starts_with(p));
            places.iter().any(here) && e.message.contains(&wanted)
        };
        match left.iter().position(fits) {
            Some(i) => drop(left.swap_remove(i)),
            None => missing.push(format!("missing {}: {wanted}", places.join(" or "))),
        }
    }
    missing.extend(left.iter().map(|e| format!("unexpected {e}")));
    if missing.is_empty() { Ok(()) } else { Err(missing.join("\n")) }
}

/// Per comment the places that its line may name (`*` ends an open one), and the text.
fn expectations(text: &str) -> Vec<(Vec<String>, String)> {
    let mut found = Vec::new();
    let (mut scope, mut calls) = (String::new(), 0);
    for line in text.lines() {
        let mut parts = line.split("; error: ");
        let code = parts.next().unwrap_or("").trim();
        let mut words = code.split([' ', '(', ':', ',', '\t']).filter(|w| !w.is_empty());
        let (first, second) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let places = match first {
            "func" => {
                scope = second.to_string();
                vec![format!("func {}", &second[1..])]
            }
            "graph" => {
                (scope, calls) = (second.to_string(), 0);
                vec![format!("graph {}", &second[1..]), format!("{second} value*")]
            }
            "call" => {
                calls += 1;
                vec![format!("{scope} call {} of {second}", calls - 1)]
            }
            "return" => vec![scope.clone()],
            "weight" | "state" | "param" => vec![format!("{first} {second}")],
            _ => vec![format!("{scope} {first}")],
        };
        found.extend(parts.map(|wanted| (places.clone(), wanted.trim().to_string())));
    }
    found
}

/// Fused ops stand in the files of the passes that make them.
#[test]
fn every_primitive_op_is_accepted_and_refused_somewhere() {
    let (mut accepted, mut refused) = (BTreeSet::new(), BTreeSet::new());
    for path in files() {
        for (pass, text) in texts(&fs::read_to_string(&path).unwrap()) {
            let Ok(unit) = Unit::parse(&text) else { continue };
            for (_, node) in unit.funcs().iter().flat_map(Func::nodes).filter(|_| pass == "cat") {
                accepted.insert(node.op.name);
            }
            let errors = unit.errors();
            for op in ops().filter(|_| pass == "verify") {
                let refusal = format!("`{}`: ", op.name);
                if errors.iter().any(|e| e.message.starts_with(&refusal)) {
                    refused.insert(op.name);
                }
            }
        }
    }
    let primitive = ops().filter(|op| op.definition().is_none());
    let all: BTreeSet<&str> = primitive.map(|op| op.name).collect();
    let lack = |have: &BTreeSet<&'static str>| all.difference(have).copied().collect::<Vec<_>>();
    assert_eq!(lack(&accepted), Vec::<&str>::new(), "ops that no `cat` text holds");
    assert_eq!(lack(&refused), Vec::<&str>::new(), "ops that no `verify` text refuses");
}
