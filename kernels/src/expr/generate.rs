//! A program as the text of a kernel.
//!
//! The text has one statement for each operation, in terms of `cuda/expr.cuh`; what is computed twice is written once where the first
//! stands in the way of the second. Columns are numbered in the order in which they are read, so that programs which are built alike
//! have the same text. Branches of a CASE are blocks: what isn't taken isn't computed, and is no fault.

use std::{collections::HashMap, fmt::Write};

use super::{
    program::Program,
    reference::nanoseconds,
    tree::{Arithmetic, Comparison, Expr, Kind, OutOfRange},
    value::{Type, Value},
};

/// The kernel's name in its text.
pub(super) const KERNEL: &str = "evaluate";

/// Threads of a block, as the prelude says.
pub(super) const BLOCK: u32 = 256;

/// What stands in front of the generated part.
const PRELUDE: &str = concat!(include_str!("../../cuda/prelude.cuh"), "\n", include_str!("../../cuda/expr.cuh"));

pub(super) fn text(program: &Program) -> String {
    let mut writer = Writer { out: PRELUDE.to_string(), indent: 2, names: HashMap::new(), log: Vec::new(), next: 0, slots: HashMap::new() };
    for (slot, (number, _)) in program.columns().iter().enumerate() {
        writer.slots.insert(*number, slot);
    }
    writer.kernel(program);
    writer.out
}

struct Writer {
    out: String,
    indent: usize,
    /// What has been computed where the writer is, and the name that it has there.
    names: HashMap<Expr, String>,
    /// The same in order, so that what a block computed is forgotten behind it.
    log: Vec<Expr>,
    next: usize,
    /// The kernel's number of each column that the batch numbers otherwise.
    slots: HashMap<usize, usize>,
}

impl Writer {
    fn line(&mut self, line: impl AsRef<str>) {
        let indent = self.indent * 2;
        let _ = writeln!(self.out, "{:indent$}{}", "", line.as_ref());
    }

    fn kernel(&mut self, program: &Program) {
        let mut parameters = vec!["u32 rows".to_string(), "u32 *__restrict__ faulty".to_string()];
        if program.filter().is_some() {
            parameters.push("u32 *__restrict__ selected".into());
        }
        for (slot, (_, of)) in program.columns().iter().enumerate() {
            parameters.push(format!("const {} *__restrict__ c{slot}", stored(*of)));
            parameters.push(format!("const u32 *__restrict__ c{slot}_valid"));
        }
        for (number, projection) in program.projections().iter().enumerate() {
            parameters.push(format!("{} *__restrict__ r{number}", stored(projection.data_type())));
            parameters.push(format!("u32 *__restrict__ r{number}_valid"));
        }
        let _ = write!(
            self.out,
            "\nextern \"C\" __global__ void __launch_bounds__(EXPR_BLOCK)\n{KERNEL}({}) {{\n  u32 faults = 0;\n  \
             for (u32 first = blockIdx.x * EXPR_BLOCK + (threadIdx.x & ~31u); first < rows; first += gridDim.x * EXPR_BLOCK) {{\n",
            parameters.join(", ")
        );
        self.line("u32 row = first + (threadIdx.x & 31);");
        if program.filter().is_some() {
            self.line("bool passes = false;");
        }
        for (number, projection) in program.projections().iter().enumerate() {
            self.line(format!("Cell<{}> p{number} = {{}};", computed(projection.data_type())));
        }
        self.open("if (row < rows) {");
        let (filtered_by, others) = program.columns().split_at(program.filtered_by());
        self.loads(filtered_by);
        if let Some(filter) = program.filter() {
            self.line(format!("// {}", self.comment(filter)));
            let name = self.name(filter);
            self.line(format!("passes = is_true({name});"));
        }
        if program.filter().is_some() && !program.projections().is_empty() {
            self.open("if (passes) {");
        }
        self.loads(others);
        for (number, projection) in program.projections().iter().enumerate() {
            self.line(format!("// {}", self.comment(projection)));
            let name = self.name(projection);
            self.line(format!("p{number} = {name};"));
        }
        if program.filter().is_some() && !program.projections().is_empty() {
            self.close(0);
        }
        self.close(0);
        if program.filter().is_some() {
            self.line("store_bits(selected, row, passes);");
        }
        for (number, projection) in program.projections().iter().enumerate() {
            self.line(match projection.data_type() {
                Type::Boolean => format!("store_bit(r{number}, r{number}_valid, row, p{number});"),
                _ => format!("store(r{number}, r{number}_valid, row, rows, p{number});"),
            });
        }
        let _ = write!(self.out, "  }}\n  if (faults) atomicOr(faulty, faults);\n}}\nEXPORT_KERNEL({KERNEL})\n");
    }

    fn open(&mut self, line: &str) {
        self.line(line);
        self.indent += 1;
    }

    /// Ends a block; what came after the log was `known` long is not known behind it.
    fn close(&mut self, known: usize) {
        self.indent -= 1;
        self.line("}");
        for expr in self.log.drain(known.min(self.log.len())..) {
            self.names.remove(&expr);
        }
    }

    fn loads(&mut self, columns: &[(usize, Type)]) {
        for &(number, of) in columns {
            let slot = self.slots[&number];
            let load = if of == Type::Boolean { "load_bit" } else { "load" };
            self.line(format!("const Cell<{}> v{slot} = {load}(c{slot}, c{slot}_valid, row);", computed(of)));
            self.remember(Expr::column(number, of), format!("v{slot}"));
        }
    }

    fn remember(&mut self, expr: Expr, name: String) {
        self.log.push(expr.clone());
        self.names.insert(expr, name);
    }

    fn fresh(&mut self) -> String {
        self.next += 1;
        format!("t{}", self.next - 1)
    }

    /// Has an expression computed, if it isn't already, and gives its name.
    fn name(&mut self, expr: &Expr) -> String {
        if let Some(name) = self.names.get(expr) {
            return name.clone();
        }
        let name = match expr.kind() {
            Kind::Case(whens, otherwise) => self.case(expr, whens, otherwise.as_ref()),
            _ => {
                let value = self.operation(expr);
                let name = self.fresh();
                self.line(format!("const Cell<{}> {name} = {value};", computed(expr.data_type())));
                name
            }
        };
        self.remember(expr.clone(), name.clone());
        name
    }

    fn operation(&mut self, expr: &Expr) -> String {
        let of = computed(expr.data_type());
        match expr.kind() {
            Kind::Column(_) | Kind::Case(..) => unreachable!("columns are loaded, and a CASE has a way of its own"),
            Kind::Literal(Value::Null(_)) => format!("null<{of}>()"),
            Kind::Literal(value) => format!("some<{of}>({})", literal(*value)),
            Kind::Compare(comparison, left, right) => {
                let function = match comparison {
                    Comparison::Equal => "equal",
                    Comparison::NotEqual => "not_equal",
                    Comparison::Less => "less",
                    Comparison::LessOrEqual => "less_or_equal",
                    Comparison::Greater => "greater",
                    Comparison::GreaterOrEqual => "greater_or_equal",
                    Comparison::Distinct => "distinct",
                    Comparison::NotDistinct => "not_distinct",
                };
                format!("{function}({}, {})", self.name(left), self.name(right))
            }
            Kind::And(left, right) => format!("logical_and({}, {})", self.name(left), self.name(right)),
            Kind::Or(left, right) => format!("logical_or({}, {})", self.name(left), self.name(right)),
            Kind::Not(of) => format!("logical_not({})", self.name(of)),
            Kind::IsNull(of) => format!("is_null({})", self.name(of)),
            Kind::Arithmetic(arithmetic, left, right) => {
                let float = expr.data_type() == Type::Float64;
                let (function, wraps) = match arithmetic {
                    Arithmetic::AddWrapping if !float => ("add_wrapping", true),
                    Arithmetic::SubtractWrapping if !float => ("subtract_wrapping", true),
                    Arithmetic::MultiplyWrapping if !float => ("multiply_wrapping", true),
                    Arithmetic::AddWrapping | Arithmetic::Add => ("add", false),
                    Arithmetic::SubtractWrapping | Arithmetic::Subtract => ("subtract", false),
                    Arithmetic::MultiplyWrapping | Arithmetic::Multiply => ("multiply", false),
                    Arithmetic::Divide => ("divide", false),
                    Arithmetic::Remainder => ("remainder", false),
                };
                format!("{function}({}, {}{})", self.name(left), self.name(right), if wraps { "" } else { ", faults" })
            }
            Kind::Negate(of) => format!("negate({})", self.name(of)),
            Kind::Cast(from, OutOfRange::Fails) => format!("cast<{of}>({}, faults)", self.name(from)),
            Kind::Cast(from, OutOfRange::IsNull) => format!("try_cast<{of}>({})", self.name(from)),
            Kind::InList(of, list) => {
                let name = self.name(of);
                let is = |value: &Value| match value {
                    Value::Float64(value) => format!("bits_of({name}.value) == {:#x}ull", value.to_bits()),
                    value => format!("{name}.value == {}", literal(*value)),
                };
                let found: Vec<String> = list.iter().filter(|value| !value.is_null()).map(is).collect();
                let found = if found.is_empty() { "false".into() } else { found.join(" || ") };
                format!("in_list({name}, {found}, {})", list.iter().any(|value| value.is_null()))
            }
            Kind::DateBin { of, stride, origin, unit } => {
                let numbers = [nanoseconds(*unit), *stride, *origin].map(|number| literal(Value::Int64(number)));
                format!("date_bin({}, {})", self.name(of), numbers.join(", "))
            }
        }
    }

    fn case(&mut self, expr: &Expr, whens: &[(Expr, Expr)], otherwise: Option<&Expr>) -> String {
        // The first condition is always looked at: it is written outside, where others may use it.
        let first = whens.first().map(|(when, _)| self.name(when)).unwrap_or_default();
        let name = self.fresh();
        self.line(format!("Cell<{}> {name} = {{}};", computed(expr.data_type())));
        let open = (whens.len() > 1 || otherwise.is_some()).then(|| format!("{name}_open"));
        if let Some(open) = &open {
            self.line(format!("bool {open} = true;"));
        }
        let known = self.log.len();
        for (number, (when, then)) in whens.iter().enumerate() {
            let condition = if number == 0 {
                first.clone()
            } else {
                self.open(&format!("if ({name}_open) {{"));
                self.name(when)
            };
            let within = self.log.len();
            self.open(&format!("if (is_true({condition})) {{"));
            let value = self.name(then);
            self.line(format!("{name} = {value};"));
            if let Some(open) = &open {
                self.line(format!("{open} = false;"));
            }
            self.close(within);
            if number > 0 {
                self.close(known);
            }
        }
        if let Some(otherwise) = otherwise {
            self.open(&format!("if ({name}_open) {{"));
            let value = self.name(otherwise);
            self.line(format!("{name} = {value};"));
            self.close(known);
        }
        name
    }

    /// An expression as SQL would say it, with the kernel's numbers of columns, so far as a line holds it.
    fn comment(&self, expr: &Expr) -> String {
        const MOST: usize = 120;
        let text = expr.shown(&|number| self.slots[&number]).to_string();
        if text.len() <= MOST { text } else { format!("{}...", text.chars().take(MOST).collect::<String>()) }
    }
}

/// The type in which values are computed.
fn computed(of: Type) -> &'static str {
    match of {
        Type::Boolean => "bool",
        Type::Int32 => "i32",
        Type::Int64 => "i64",
        Type::Float64 => "double",
    }
}

/// The type in which columns lie in memory.
fn stored(of: Type) -> &'static str {
    if of == Type::Boolean { "u32" } else { computed(of) }
}

/// A literal that isn't NULL. The least integers have no literal of their own in C.
fn literal(value: Value) -> String {
    match value {
        Value::Null(_) => unreachable!("NULL is no literal of C"),
        Value::Boolean(value) => value.to_string(),
        Value::Int32(i32::MIN) => "(-2147483647 - 1)".into(),
        Value::Int32(value) => value.to_string(),
        Value::Int64(i64::MIN) => "(-9223372036854775807ll - 1)".into(),
        Value::Int64(value) => format!("{value}ll"),
        Value::Float64(value) => format!("of_bits({:#x}ull)", value.to_bits()),
    }
}
