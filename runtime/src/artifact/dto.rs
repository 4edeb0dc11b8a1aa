//! Plan and weight table as they stand in the file: plain data with short names.
use super::FileMark;
use ds4_ir::plan::{self, Maxima};
use ds4_ir::{Layout, Module, Role, parse_tensor_type};
use serde::{Deserialize, Serialize};

/// Reads a section of JSON.
pub(super) fn from_json<T: for<'a> Deserialize<'a>>(section: &str, bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|e| format!("section {section}: {e}"))
}

#[derive(Serialize, Deserialize)]
pub(super) struct Plan {
    launches: Vec<(String, Vec<String>)>,
    buckets: Vec<Bucket>,
}

/// Per value: address and bytes of its kernel's scratch.
type Scratch = Vec<Option<(u64, u64)>>;

#[derive(Serialize, Deserialize)]
struct Bucket {
    tokens: u32,
    wanted: u32,
    arena_bytes: u64,
    graphs: Vec<(String, Vec<u64>, Vec<u64>)>,
    funcs: Vec<(String, Vec<Option<u64>>, Scratch, u64)>,
}

impl From<&plan::Plan> for Plan {
    fn from(plan: &plan::Plan) -> Plan {
        let launches = plan.launches.iter().map(|l| (l.func.clone(), l.launches.clone())).collect();
        let bucket = |b: &plan::Bucket| Bucket {
            tokens: b.maxima.tokens,
            wanted: b.maxima.wanted,
            arena_bytes: b.arena_bytes,
            graphs: b
                .graphs
                .iter()
                .map(|g| (g.graph.clone(), g.addresses.clone(), g.parts.clone()))
                .collect(),
            funcs: b
                .funcs
                .iter()
                .map(|f| (f.func.clone(), f.addresses.clone(), f.scratch.clone(), f.bytes))
                .collect(),
        };
        Plan { launches, buckets: plan.buckets.iter().map(bucket).collect() }
    }
}

impl Plan {
    /// The plan of `module`, proven to fit it.
    pub(super) fn into_plan(self, module: &Module) -> Result<plan::Plan, String> {
        let launch = |(func, launches)| plan::LaunchList { func, launches };
        let bucket = |b: Bucket| plan::Bucket {
            maxima: Maxima { tokens: b.tokens, wanted: b.wanted, ctx: module.ctx },
            arena_bytes: b.arena_bytes,
            graphs: b
                .graphs
                .into_iter()
                .map(|(graph, addresses, parts)| plan::GraphPlan { graph, addresses, parts })
                .collect(),
            funcs: b
                .funcs
                .into_iter()
                .map(|(func, addresses, scratch, bytes)| plan::FuncPlan { func, addresses, scratch, bytes })
                .collect(),
        };
        let launches = self.launches.into_iter().map(launch).collect();
        let plan = plan::Plan { launches, buckets: self.buckets.into_iter().map(bucket).collect() };
        plan.check(module).map_err(|e| format!("section plan: {e}"))?;
        Ok(plan)
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Table {
    files: Vec<String>,
    weights: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    name: String,
    ty: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    layout: Option<String>,
    /// Role (`c` or `s`), file, offset, bytes, stride, count.
    parts: Vec<(char, u32, u64, u64, u64, u32)>,
}

impl From<&ds4_ir::WeightTable> for Table {
    fn from(table: &ds4_ir::WeightTable) -> Table {
        let part = |p: &ds4_ir::Part| {
            let role = if p.role == Role::Codes { 'c' } else { 's' };
            (role, p.file, p.offset, p.bytes, p.stride, p.count)
        };
        let entry = |e: &ds4_ir::WeightEntry| Entry {
            name: e.name.clone(),
            ty: e.ty.to_string(),
            layout: match &e.layout {
                Layout::AsStored => None,
                Layout::Repacked(name) => Some(name.clone()),
            },
            parts: e.parts.iter().map(part).collect(),
        };
        Table { files: table.files.clone(), weights: table.entries.iter().map(entry).collect() }
    }
}

impl Table {
    pub(super) fn into_table(self) -> Result<ds4_ir::WeightTable, String> {
        let entries = self.weights.into_iter().map(Entry::into_entry).collect::<Result<_, _>>()?;
        Ok(ds4_ir::WeightTable { files: self.files, entries })
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Layouts {
    header: String,
    mark: Option<FileMark>,
    table: Table,
}

impl From<&super::Layouts> for Layouts {
    fn from(layouts: &super::Layouts) -> Layouts {
        let super::Layouts { header, mark, table } = layouts;
        Layouts { header: header.clone(), mark: mark.clone(), table: Table::from(table) }
    }
}

impl Layouts {
    pub(super) fn into_layouts(self) -> Result<super::Layouts, String> {
        let Layouts { header, mark, table } = self;
        let table = table.into_table().map_err(|e| e.replace("section weights", "section layouts"))?;
        if table.files.len() != 1 {
            return Err(format!("section layouts: expected one file, got {}", table.files.len()));
        }
        Ok(super::Layouts { header, mark, table })
    }
}

impl Entry {
    fn into_entry(self) -> Result<ds4_ir::WeightEntry, String> {
        let Entry { name, ty, layout, parts } = self;
        let ty = parse_tensor_type(&ty).map_err(|e| format!("section weights: {name}: {e}"))?;
        let part = |(role, file, offset, bytes, stride, count)| {
            let role = match role {
                'c' => Role::Codes,
                's' => Role::Scales,
                other => return Err(format!("section weights: {name}: expected role c or s, got {other}")),
            };
            Ok(ds4_ir::Part { role, file, offset, bytes, stride, count })
        };
        let parts = parts.into_iter().map(part).collect::<Result<_, _>>()?;
        let layout = layout.map_or(Layout::AsStored, Layout::Repacked);
        Ok(ds4_ir::WeightEntry { name, ty, layout, parts })
    }
}
