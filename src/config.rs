//! Configuration: file < environment < flags. Unknown keys are refused.
