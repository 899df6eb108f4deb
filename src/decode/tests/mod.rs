//! Cases, an oracle, and a measurement.
