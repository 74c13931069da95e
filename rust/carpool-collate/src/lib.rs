//! Rows into one batch: how wide it is, where each row goes, the copying, and buffers that are used again.
//!
//! | module | what |
//! |---|---|
//! | [`widths`] | from the longest row to the width of a batch |
//! | [`row`] | a row as it lies in memory, with strides |
//! | [`place`] | a row copied into its part of the batch, the rest filled up |
//! | [`pool`] | buffers that nobody refers to any more, for the next batch |
//!
//! Knows neither Python nor batchers: shapes are numbers and rows are memory.

pub mod place;
pub mod pool;
pub mod row;
pub mod widths;

pub use place::{Frame, Pattern};
pub use pool::{Block, Pool};
pub use row::{MAX_RANK, Row};
pub use widths::{Side, Widths};
