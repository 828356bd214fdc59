//! What is on disk?
//!
//! Start at [`Campaign`]: a directory that holds the tables of [`schema`](crate::schema). A recording grows as an Arrow
//! IPC stream, the *spool*, because a Parquet file whose writer was killed has no footer and cannot be read; a finished
//! spool is sealed into Parquet under a temporary name and renamed.
//!
//! ```text
//! samples-HOST-000000.arrows.spool   append, flush each second     killed here: rows up to the last flush survive
//!   -> .samples-HOST-000000.*.tmp    rewritten as Parquet, fsync   killed here: the spool is still whole
//!   -> samples-HOST-000000.parquet   rename, fsync of directory    killed here: both exist, the spool is ignored
//!   -> spool removed
//! ```
//!
//! Limits. A flush hands bytes to the kernel; it does not wait for the disk. So `kill -9` loses at most what was not
//! flushed, whereas a power failure can also lose what the kernel had not written yet (about 30 s on ext4). Whether a
//! spool is still being written is told by its `flock`, which some network file systems do not offer: there, orphans
//! are left alone. A sealed segment's metadata says which span its rows lie in. Rows of a sealed segment are grouped by device, in time order within each device.

mod campaign;
mod column_order;
pub mod columns;
mod compact;
mod complete;
mod decode;
mod error;
mod footer;
mod inventory;
mod lock;
mod merge;
mod metadata;
mod part;
mod read;
mod rows;
mod sealed;
mod segment;
mod span;
mod spool;
mod sql;
mod trace;

pub(crate) use decode::contained;
pub(crate) use footer::open_parquet;

pub use campaign::{Campaign, Recovered, RecoveredAs};
pub use compact::{Compacted, compact};
pub use error::{Error, Result};
pub use inventory::{Inventory, OwnSegment};
pub use lock::{CampaignLock, host_name};
pub use merge::{Merged, merge};
pub use metadata::{FileMetadata, read_metadata};
pub use part::{move_segments, part_of};
pub use read::{read_file, read_table, table_files};
pub use rows::{BatchBuilder, MarkRow, RunRow, SampleRow, Serving, TelemetryRow};
pub use sealed::{write_table, write_table_from};
pub use segment::SegmentWriter;
pub use sql::{duckdb_views, has_spools, is_lake};
pub use trace::read_trace;

#[cfg(test)]
mod tests;
