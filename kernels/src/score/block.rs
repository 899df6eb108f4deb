//! Rows in blocks: what a model does to one row it does to all of a block before it goes on, so that both the rows and the part of the
//! model at hand stay in the nearest cache.

/// Rows in a block: with 16 features 8 KiB of values, a quarter of the nearest cache.
pub(super) const ROWS: usize = 64;

/// Some rows, one column after the other.
pub(super) struct Block {
    /// Each column has room for [`ROWS`]; what lies beyond the last row means nothing.
    cells: Vec<f64>,
    rows: usize,
    missing: bool,
}

impl Block {
    /// How many rows there are.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Whether a value is missing in any of them.
    pub(super) fn missing(&self) -> bool {
        self.missing
    }

    /// All columns, [`ROWS`] from one to the next.
    pub(super) fn cells(&self) -> &[f64] {
        &self.cells
    }

    /// As [`Self::cells`], to be changed.
    pub(super) fn cells_mut(&mut self) -> &mut [f64] {
        &mut self.cells
    }
}

/// Scores rows block after block. `score` gets a block and its rows' scores, row after row and all 0.0, to be filled.
///
/// # Panics
///
/// If the columns are not `width`, or not of one length.
pub(super) fn score_in_blocks(columns: &[&[f64]], width: usize, outputs: usize, mut score: impl FnMut(&mut Block, &mut [f64])) -> Vec<f64> {
    assert_eq!(columns.len(), width, "a column per feature");
    let rows = columns.first().map_or(0, |column| column.len());
    assert!(columns.iter().all(|column| column.len() == rows), "columns of one length");
    let mut scores = vec![0.0; rows * outputs];
    let mut block = Block { cells: vec![0.0; ROWS * width], rows: 0, missing: false };
    for (number, scores) in scores.chunks_mut(ROWS * outputs).enumerate() {
        block.rows = scores.len() / outputs;
        block.missing = false;
        for (cells, column) in block.cells.chunks_exact_mut(ROWS).zip(columns) {
            let cells = &mut cells[..block.rows];
            cells.copy_from_slice(&column[number * ROWS..][..block.rows]);
            block.missing |= cells.iter().fold(false, |missing, cell| missing | cell.is_nan());
        }
        score(&mut block, scores);
    }
    scores
}
