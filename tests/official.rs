//! Class `official` in single precision, op by op: each op that rounds chooses the codes that the
//! reference chose on the reference's own inputs (`tests/vectors/official.py`).
use ds4_ir::view::WeightView;
use ds4_ir::{Bind, Buffer, Interp, Real, WeightSource, parse_module, verify_module};

/// Of this many codes, one may be another, by one step.
const CODES_PER_MISS: usize = 10_000;

struct Record<'a> {
    op: &'a str,
    width: usize,
    inputs: Vec<f32>,
    /// Rows as the reference's codes give them.
    rows: &'a [u8],
    row_bytes: usize,
}

fn records(mut bytes: &[u8]) -> Vec<Record<'_>> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let end = bytes.iter().position(|b| *b == b'\n').expect("a head");
        let head: Vec<&str> = std::str::from_utf8(&bytes[..end]).unwrap().split(' ').collect();
        let number = |i: usize| head[i].parse::<usize>().unwrap();
        let (width, n, row_bytes) = (number(1), number(2), number(3));
        let (inputs, rest) = bytes[end + 1..].split_at(4 * width * n);
        let (rows, rest) = rest.split_at(row_bytes * n);
        let inputs = inputs.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        records.push(Record { op: head[0], width, inputs, rows, row_bytes });
        bytes = rest;
    }
    records
}

struct NoWeights;

impl WeightSource for NoWeights {
    fn weight(&self, index: usize) -> WeightView<'_> {
        panic!("there is no weight {index}")
    }
}

/// The packed rows that the op makes of the inputs.
fn rounded<F: Real>(record: &Record<'_>) -> Vec<u8> {
    let (operands, ty) = match record.op {
        "to_row" => ("fmt=kv8, dims=64", "kv8r64"),
        "to_index" => ("fmt=idx4", "idx4"),
        "round_act" => ("fmt=e4m3x128", "e4m3x128"),
        other => panic!("{other} rounds nothing"),
    };
    let (op, width) = (record.op, record.width);
    let text = format!(
        "module @m {{\nclass official\nctx 512\nvocab 2\n}}\n\
         func @f(%x: f32[t, {width}]) {{\n%y = {op} %x, {operands} : {ty}[t, {width}]\nreturn %y\n}}\n\
         graph @main(%x: f32[t, {width}]) {{\ncall @f(%x) -> %y {{\n}}\nreturn %y\n}}\n"
    );
    let module = parse_module(&text).unwrap_or_else(|e| panic!("{e}"));
    verify_module(&module).unwrap_or_else(|e| panic!("{}", e[0]));
    let x = record.inputs.iter().map(|x| F::from_f32(*x)).collect();
    let bind = Bind { start: 0, tokens: record.inputs.len() / width, wanted: 0 };
    let values = Interp::<F>::new(&module, &NoWeights).step(&module.graphs[0], vec![Buffer::Real(x)], &bind);
    match values.into_iter().next_back().map(|v| v.buffer) {
        Some(Buffer::Packed(bytes)) => bytes,
        other => panic!("{op} gives packed rows, got {other:?}"),
    }
}

/// Codes of a row as whole numbers in the order of their values, and the scales.
fn codes<'a>(record: &Record<'_>, row: &'a [u8]) -> (Vec<i32>, &'a [u8]) {
    let signed =
        |code: u32, sign: u32| if code & sign == 0 { code as i32 } else { -((code & (sign - 1)) as i32) };
    let byte = |b: &u8| signed(u32::from(*b), 0x80);
    let width = record.width;
    match record.op {
        "to_row" => {
            let (scaled, rest) = row.split_at(64);
            let (rope, scales) = rest.split_at(2 * (width - 64));
            let rope =
                rope.chunks_exact(2).map(|b| signed(u32::from(u16::from_le_bytes([b[0], b[1]])), 0x8000));
            (scaled.iter().map(byte).chain(rope).collect(), scales)
        }
        "to_index" => {
            let (nibbles, scales) = row.split_at(width / 2);
            (nibbles.iter().flat_map(|b| [b & 15, b >> 4]).map(|c| signed(u32::from(c), 8)).collect(), scales)
        }
        _ => (row[..width].iter().map(byte).collect(), &row[width..]),
    }
}

/// Fails unless the codes are the reference's, one in [`CODES_PER_MISS`] excepted.
fn compare<F: Real>(record: &Record<'_>) {
    let op = record.op;
    let (mut n, mut missed) = (0, 0);
    let got = rounded::<F>(record);
    assert_eq!(got.len(), record.rows.len(), "{op}: bytes");
    for (r, (got, want)) in got.chunks(record.row_bytes).zip(record.rows.chunks(record.row_bytes)).enumerate()
    {
        let ((got, got_scales), (want, want_scales)) = (codes(record, got), codes(record, want));
        assert_eq!(got_scales, want_scales, "{op}: scales of row {r}");
        assert_eq!(got.len(), record.width, "{op}: codes of row {r}");
        for (c, (got, want)) in got.iter().zip(&want).enumerate() {
            assert!((got - want).abs() <= 1, "{op}: code {c} of row {r}: expected {want}, got {got}");
            missed += usize::from(got != want);
            n += 1;
        }
    }
    println!("{op}: {missed} of {n} codes off by one step");
    assert!(n >= CODES_PER_MISS, "{op}: {n} codes are too few to judge by");
    assert!(missed * CODES_PER_MISS <= n, "{op}: {missed} of {n} codes are off");
}

#[test]
fn ops_that_round_choose_the_codes_of_the_reference() {
    let records = records(include_bytes!("vectors/official.bin"));
    let ops: Vec<&str> = records.iter().map(|r| r.op).collect();
    assert_eq!(ops, ["to_row", "to_index", "round_act"]);
    for record in &records {
        compare::<f32>(record);
        compare::<f64>(record);
    }
}
