//! Functions that read JSON text: `json_get` and its like.
