//! The kernels there are, and their sources.

/// A kernel, by its name in the sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// Scores rows with a forest.
    ForestScore,
    /// Scores rows with boosted trees.
    BoostedScore,
    /// Scores rows with a linear model.
    LinearScore,
    /// Decodes JSON objects into columns.
    JsonDecode,
    /// Rows' windows.
    AggregateBins,
    /// Rows' groups.
    AggregateSlots,
    /// Groups' numbers and keys.
    AggregateNumber,
    /// Groups' greatest exponents.
    AggregateScale,
    /// Counts rows.
    AggregateRows,
    /// Aggregates integers.
    AggregateI64,
    /// Aggregates floats.
    AggregateF64,
}

/// One `.cu` file with what it is compiled to.
#[derive(Debug)]
pub struct Source {
    /// Its name, without the ending.
    pub name: &'static str,
    /// Its whole text, the shared prelude first.
    pub text: &'static str,
    /// What NVRTC made of it for compute capability 8.0, in an instruction set that drivers for CUDA 12.0 and later understand. The first
    /// line holds the hash of the text that it was made of.
    pub ptx: &'static str,
    /// The kernels in it.
    pub kernels: &'static [Kernel],
}

macro_rules! source {
    ($name:literal, $kernels:expr) => {
        Source {
            name: $name,
            text: concat!(include_str!("../../cuda/prelude.cuh"), include_str!(concat!("../../cuda/", $name, ".cu"))),
            ptx: include_str!(concat!("../../cuda/ptx/", $name, ".ptx")),
            kernels: $kernels,
        }
    };
}

/// All sources. Nothing else is needed at run time: texts and PTX are part of the program.
pub static SOURCES: [Source; 3] = [
    source!("score", &[Kernel::ForestScore, Kernel::BoostedScore, Kernel::LinearScore]),
    source!("json_decode", &[Kernel::JsonDecode]),
    source!(
        "aggregate",
        &[
            Kernel::AggregateBins,
            Kernel::AggregateSlots,
            Kernel::AggregateNumber,
            Kernel::AggregateScale,
            Kernel::AggregateRows,
            Kernel::AggregateI64,
            Kernel::AggregateF64,
        ]
    ),
];

impl Kernel {
    /// All kernels, in their numbers' order.
    pub(super) const COUNT: usize = Kernel::AggregateF64 as usize + 1;

    /// Its name in the source.
    pub fn name(self) -> &'static std::ffi::CStr {
        match self {
            Kernel::ForestScore => c"forest_score",
            Kernel::BoostedScore => c"boosted_score",
            Kernel::LinearScore => c"linear_score",
            Kernel::JsonDecode => c"json_decode",
            Kernel::AggregateBins => c"aggregate_bins",
            Kernel::AggregateSlots => c"aggregate_slots",
            Kernel::AggregateNumber => c"aggregate_number",
            Kernel::AggregateScale => c"aggregate_scale",
            Kernel::AggregateRows => c"aggregate_rows",
            Kernel::AggregateI64 => c"aggregate_i64",
            Kernel::AggregateF64 => c"aggregate_f64",
        }
    }
}

/// 64-bit FNV-1a.
pub(super) fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

impl Source {
    /// A hash of the text (64-bit FNV-1a), which names what is compiled of it.
    pub fn hash(&self) -> u64 {
        hash(self.text)
    }

    /// The first line of the PTX made of this text.
    pub fn ptx_header(&self) -> String {
        format!("// {}.cu {:016x}", self.name, self.hash())
    }
}
