//! Flight SQL over sessions. Knows no operator.
