//! The kept tables: one line per text.
use ds4_codegen::Target;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What a text needs of a device, as its compiler reports it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Resources {
    /// Vector registers of a thread; 0 where the compiler does not tell.
    pub(crate) registers: u32,
    /// Shared memory of a block in bytes.
    pub(crate) shared: u32,
    /// Memory of a thread's own in bytes: what does not fit registers.
    pub(crate) spilled: u32,
}

#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) hash: String,
    pub(crate) name: String,
    pub(crate) threads: u32,
    pub(crate) resources: Resources,
    /// Model, types of weights, class, function, value and bucket that first use it.
    pub(crate) first_use: String,
}

/// The texts of one target in the order of their first use.
pub(crate) struct Table {
    /// The compiler and its version.
    pub(crate) tool: String,
    /// What the header says beside it.
    target: String,
    pub(crate) rows: Vec<Row>,
}

/// Name of a text: the same bytes have the same.
pub(crate) fn hash(source: &str) -> String {
    blake3::hash(source.as_bytes()).to_hex()[..16].to_string()
}

fn path(target: Target) -> PathBuf {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/compile_checks");
    PathBuf::from(folder).join(format!("{}.txt", target.arch))
}

const COLUMNS: &str = "text             kernel           threads registers shared spilled  first use";

impl Table {
    pub(crate) fn new(target: Target, tool: &str) -> Table {
        Table { tool: tool.to_string(), target: target.to_string(), rows: Vec::new() }
    }

    /// The kept table; an empty one if there is none.
    pub(crate) fn read(target: Target) -> Table {
        let text = std::fs::read_to_string(path(target)).unwrap_or_default();
        let mut lines = text.lines();
        let tool = lines.next().and_then(|line| line.split_once(" by ")).map_or("nobody", |(_, tool)| tool);
        let rows = lines.skip(1).map(|line| Row::read(line).unwrap_or_else(|| panic!("no row: {line}")));
        Table { tool: tool.to_string(), target: target.to_string(), rows: rows.collect() }
    }

    pub(crate) fn write(&self, target: Target) {
        let mut text = format!("{} by {}\n{COLUMNS}\n", self.target, self.tool);
        for row in &self.rows {
            text += &row.line();
            text.push('\n');
        }
        std::fs::write(path(target), text).unwrap();
    }

    /// Adds a row, unless a text with the same bytes has one.
    pub(crate) fn add(&mut self, row: Row) {
        if self.resources(&row.hash).is_none() {
            self.rows.push(row);
        }
    }

    pub(crate) fn resources(&self, hash: &str) -> Option<Resources> {
        self.rows.iter().find(|row| row.hash == hash).map(|row| row.resources.clone())
    }

    /// Lines that only one of the tables has.
    pub(crate) fn differences(&self, made: &Table) -> Vec<String> {
        let lines = |table: &Table| -> Vec<String> { table.rows.iter().map(Row::line).collect() };
        let (kept, made) = (lines(self), lines(made));
        let mut count: BTreeMap<&str, (bool, bool)> = BTreeMap::new();
        kept.iter().for_each(|line| count.entry(line).or_default().0 = true);
        made.iter().for_each(|line| count.entry(line).or_default().1 = true);
        let only = |(line, at): (&&str, &(bool, bool))| match at {
            (true, false) => Some(format!("- {line}")),
            (false, true) => Some(format!("+ {line}")),
            _ => None,
        };
        count.iter().filter_map(only).collect()
    }
}

impl Row {
    fn line(&self) -> String {
        let Row { hash, name, threads, resources, first_use } = self;
        let Resources { registers, shared, spilled } = resources;
        format!("{hash} {name:<16} {threads:>7} {registers:>9} {shared:>6} {spilled:>7}  {first_use}")
    }

    fn read(line: &str) -> Option<Row> {
        let mut rest = line;
        let mut word = || {
            let (word, behind) = rest.trim_start().split_once(' ')?;
            rest = behind;
            Some(word)
        };
        let (hash, name) = (word()?.to_string(), word()?.to_string());
        let mut number = || word()?.parse().ok();
        let (threads, registers, shared, spilled) = (number()?, number()?, number()?, number()?);
        let resources = Resources { registers, shared, spilled };
        Some(Row { hash, name, threads, resources, first_use: rest.trim_start().to_string() })
    }
}
