//! Violations that the text cannot spell: a parser never makes them, a pass or a builder might.
use ds4_ir::module::GraphValue;
use ds4_ir::{
    Arg, Dim, Func, Lit, Module, Node, Scalar, StateKind, StateType, Sym, TensorType, Type, op, parse_module,
    verify, verify_module,
};

fn tokens(width: u32) -> Type {
    Type::Tensor(TensorType::new(Scalar::F32, [Dim::Sym(Sym::Tokens), Dim::Const(width)]))
}

fn node(name: &str, args: Vec<Arg>) -> Node {
    Node { op: op(name).expect("an op of the table"), args }
}

fn refused(func: &Func, expected: &str) {
    let errors = verify(func).expect_err(expected);
    assert!(errors.iter().any(|e| e.to_string() == expected), "expected `{expected}`, got {errors:?}");
}

#[test]
fn names_are_unique() {
    let mut func = Func::new("f");
    func.input("x", tokens(8));
    func.input("x", tokens(8));
    refused(&func, "@f %x: is defined twice");
    let mut func = Func::new("f");
    func.declare("w", TensorType::fixed(Scalar::F32, &[8]));
    func.declare("w", TensorType::fixed(Scalar::F32, &[8]));
    refused(&func, "@f @w: is declared twice");
}

#[test]
fn inputs_come_before_nodes() {
    let mut func = Func::new("f");
    let x = func.input("x", tokens(8));
    let y = func.push("y", tokens(8), node("add", vec![Arg::Value(x), Arg::Value(x)]));
    func.input("late", tokens(8));
    func.results = vec![y];
    refused(&func, "@f %late: is an input after a node");
}

#[test]
fn operands_are_defined_before_use() {
    let mut func = Func::new("f");
    let x = func.input("x", tokens(8));
    let ahead = {
        let mut longer = func.clone();
        longer.push("y", tokens(8), node("add", vec![Arg::Value(x), Arg::Value(x)]));
        longer.push("z", tokens(8), node("add", vec![Arg::Value(x), Arg::Value(x)]))
    };
    func.push("y", tokens(8), node("add", vec![Arg::Value(x), Arg::Value(ahead)]));
    func.push("z", tokens(8), node("add", vec![Arg::Value(x), Arg::Value(x)]));
    refused(&func, "@f %y: uses %z before its definition");
}

#[test]
fn operands_stand_where_the_row_takes_them() {
    let mut func = Func::new("f");
    let x = func.input("x", tokens(8));
    func.push("y", tokens(8), node("add", vec![Arg::Value(x)]));
    refused(&func, "@f %y: `add`: `add` takes 2 operands, got 1");
    let mut func = Func::new("f");
    let x = func.input("x", tokens(8));
    func.push("y", tokens(8), node("add", vec![Arg::Value(x), Arg::Lit(Lit::Int(1))]));
    refused(&func, "@f %y: `add`: `add` takes a value or a weight as `y`");
}

#[test]
fn states_are_no_tensors() {
    let mut func = Func::new("f");
    let ty = StateType { kind: StateKind::Ring(4), scalar: Scalar::F32, width: 8 };
    let s = func.input("s", Type::State(ty));
    func.push("y", tokens(8), node("add", vec![Arg::Value(s), Arg::Value(s)]));
    func.results = vec![s];
    refused(&func, "@f %y: `add`: operand 0: expected a tensor, got state ring/4 f32[8]");
}

const MODULE: &str = "\
module @m {
  class exact
  ctx 64
  vocab 10
}
weight a: f32[8]
state s: state ring/4 f32[8]
state u: state ring/4 f32[8]
param p: f32[8]
func @f(%x: f32[t, 8], %s: state ring/4 f32[8], %p: param f32[8], @w: f32[8]) {
  %y = add %x, @w : f32[t, 8]
  return %y, %s
}
graph @main(%x: f32[t, 8]) {
  call @f(%x) -> %y {
    %s = s
    %p = p
    @w = a
  }
  call @f(%y) -> %z {
    %s = u
    %p = p
    @w = a
  }
  return %z
}
";

#[test]
fn bindings_of_a_module_exist() {
    let good = parse_module(MODULE).unwrap();
    assert_eq!(verify_module(&good), Ok(()));
    type Change = fn(&mut Module);
    let changes: &[(&str, Change)] = &[
        ("@main call 0: there is no function 9", |m| m.graphs[0].calls[0].func = 9),
        ("@main call 0 of @f: expected 1 operands, got 0", |m| m.graphs[0].calls[0].args.clear()),
        ("@main call 0 of @f: %x: nothing has number 9", |m| m.graphs[0].calls[0].args = vec![9]),
        ("@main call 0 of @f: reads graph value 2 before its definition", |m| {
            m.graphs[0].calls[0].args = vec![2];
        }),
        ("@main call 0 of @f: expected 1 result operands, got 0", |m| m.graphs[0].calls[0].outs.clear()),
        ("@main call 1 of @f: defines graph value 1 a second time", |m| m.graphs[0].calls[1].outs = vec![1]),
        ("@main value z: is never defined", |m| m.graphs[0].calls[1].outs = vec![1]),
        ("@main: returns graph value 2, which no call defines", |m| drop(m.graphs[0].calls.pop())),
        ("@main: returns graph value 7, which no call defines", |m| m.graphs[0].results = vec![7]),
        ("@main call 0 of @f: expected 1 operands, got 0", |m| m.graphs[0].calls[0].states.clear()),
        ("@main call 0 of @f: %s: nothing has number 9", |m| m.graphs[0].calls[0].states = vec![9]),
        ("@main call 1 of @f: binds state s a second time", |m| m.graphs[0].calls[1].states = vec![0]),
        ("@main call 0 of @f: %p: nothing has number 9", |m| m.graphs[0].calls[0].params = vec![9]),
        ("@main call 0 of @f: expected 1 weights, got 0", |m| m.graphs[0].calls[0].weights.clear()),
        ("@main call 0 of @f: @w: there is no weight 9", |m| m.graphs[0].calls[0].weights = vec![9]),
        ("@main value y: expected a tensor, got state ring/4 f32[8]", |m| {
            m.graphs[0].values[1].ty = Type::State(m.states[0].ty);
        }),
        ("@main value x: is declared twice", |m| {
            let ty = tokens(8);
            m.graphs[0].values.push(GraphValue { name: "x".to_string(), ty });
        }),
        ("@main: has 3 values, expected 9 inputs among them", |m| m.graphs[0].inputs = 9),
        // Both calls bind a state that does not exist.
        ("@main call 1 of @f: binds state 9 a second time", |m| {
            m.graphs[0].calls.iter_mut().for_each(|c| c.states = vec![9]);
        }),
    ];
    for (expected, change) in changes {
        let mut module = good.clone();
        change(&mut module);
        let errors = verify_module(&module).expect_err(expected);
        assert!(errors.iter().any(|e| e.to_string() == *expected), "expected `{expected}`, got {errors:?}");
    }
}
