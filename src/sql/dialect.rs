//! The dialect that statements are parsed in: DataFusion's generic one, in which `events$errors` is one name, with a bound on how often the parser may try.
//!
//! Where `CASE …`, `CAST(…)` and their like turn out wrong, the parser reads them again as something else, and all that is in them with them:
//! of forty in each other the innermost is read 2^40 times. What is right is read about once.

use std::{any::TypeId, cell::Cell};

use datafusion::sql::sqlparser::{
    ast::Expr,
    dialect::{Dialect, DuckDbDialect, GenericDialect},
    parser::{Parser, ParserError},
    tokenizer::{Token, TokenWithSpan},
};

use super::cursor::is_word;

/// So many beginnings of expressions are read of each token, and of a text without many.
const TRIES_PER_TOKEN: usize = 16;
const TRIES: usize = 20_000;

thread_local! {
    /// How many tries are left of the text that this thread parses.
    static LEFT: Cell<usize> = const { Cell::new(TRIES) };
}

/// The dialect.
#[derive(Debug)]
struct Bounded<D> {
    inner: D,
}

static GENERIC: Bounded<GenericDialect> = Bounded { inner: GenericDialect {} };
static DUCKDB: Bounded<DuckDbDialect> = Bounded { inner: DuckDbDialect {} };

/// The dialect for these tokens, which this thread parses before others: DuckDB's if it has what the usual one can't read, `x -> x + 1` as a function's argument or `STRUCT(a INT)`
/// as a type. Neither means anything else here: there is no operator `->`.
pub(super) fn dialect_of(tokens: &[TokenWithSpan]) -> &'static dyn Dialect {
    let token = |at: usize| tokens.get(at).map(|token| &token.token);
    let is_duckdbs = (0..tokens.len()).any(|at| match token(at) {
        Some(Token::Arrow) => true,
        Some(Token::LParen) if at >= 2 => {
            let cast = |before: &Token| *before == Token::DoubleColon || is_word(before, "AS");
            token(at - 1).is_some_and(|word| is_word(word, "STRUCT")) && token(at - 2).is_some_and(cast)
        }
        _ => false,
    });
    LEFT.set(TRIES + TRIES_PER_TOKEN * tokens.len());
    if is_duckdbs { &DUCKDB } else { &GENERIC }
}

macro_rules! as_inner {
    ($($method:ident)*) => { $(fn $method(&self) -> bool { self.inner.$method() })* };
}

impl<D: Dialect> Dialect for Bounded<D> {
    fn dialect(&self) -> TypeId {
        self.inner.dialect()
    }

    fn parse_prefix(&self, _: &mut Parser) -> Option<Result<Expr, ParserError>> {
        match LEFT.get().checked_sub(1) {
            Some(left) => {
                LEFT.set(left);
                None
            }
            None => Some(Err(ParserError::RecursionLimitExceeded)),
        }
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        self.inner.is_delimited_identifier_start(ch)
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        self.inner.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        self.inner.is_identifier_part(ch)
    }

    // All that one of them says for itself.
    as_inner! {
        supports_unicode_string_literal supports_partition_by_after_order_by supports_array_join_syntax supports_group_by_expr
        supports_group_by_with_modifier supports_left_associative_joins_without_parens supports_connect_by supports_match_recognize
        supports_pipe_operator supports_start_transaction_modifier supports_window_function_null_treatment_arg supports_dictionary_syntax
        supports_window_clause_named_window_reference supports_parenthesized_set_variables supports_select_wildcard_except
        support_map_literal_syntax allow_extract_custom allow_extract_single_quotes supports_extract_comma_syntax
        supports_create_view_comment_syntax supports_parens_around_table_factor supports_values_as_table_factor
        supports_create_index_with_clause supports_explain_with_utility_options supports_limit_comma supports_update_order_by
        supports_from_first_select supports_projection_trailing_commas supports_asc_desc_in_column_definition supports_try_convert
        supports_bitwise_shift_operators supports_comment_on supports_load_extension supports_named_fn_args_with_assignment_operator
        supports_struct_literal supports_empty_projections supports_nested_comments supports_multiline_comment_hints
        supports_user_host_grantee supports_string_escape_constant supports_array_typedef_with_brackets supports_match_against
        supports_set_names supports_comma_separated_set_assignments supports_filter_during_aggregation supports_select_wildcard_exclude
        supports_data_type_signed_suffix supports_interval_options supports_quote_delimited_string supports_select_wildcard_replace
        supports_select_wildcard_ilike supports_select_wildcard_rename supports_optimize_table supports_install supports_detach
        supports_prewhere supports_with_fill supports_limit_by supports_interpolate supports_settings supports_select_format
        supports_comment_optimizer_hint supports_constraint_keyword_without_name supports_key_column_option supports_comma_separated_trim
        supports_cte_without_as supports_select_item_multi_column_alias supports_xml_expressions supports_trailing_commas
        supports_named_fn_args_with_eq_operator supports_lambda_functions supports_order_by_all supports_notnull_operator
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::{Duration, Instant};

    use crate::sql::parse_one;

    #[test]
    fn what_is_wrong_deep_inside_is_soon_known() {
        for (before, after) in
            [("CASE WHEN true THEN ", " END"), ("CAST(", " AS BIGINT)"), ("TRIM(", ")"), ("STRUCT(", ")"), ("POSITION(", " IN 'x')"), ("NOT (", ")")]
        {
            for levels in [10, 24, 48] {
                let began = Instant::now();
                assert!(parse_one(&format!("SELECT {}1 1{}", before.repeat(levels), after.repeat(levels))).is_err());
                assert!(began.elapsed() < Duration::from_secs(5), "{before} {levels}");
            }
        }
    }

    #[test]
    fn what_is_right_is_read() {
        let case = format!("SELECT {}1{}", "CASE WHEN true THEN ".repeat(30), " END".repeat(30));
        let rows = format!("VALUES {}(1, 'x', -2)", "(1, CAST('a' AS TEXT), - (3)), ".repeat(20_000));
        for sql in [case.as_str(), &rows] {
            parse_one(sql).unwrap();
        }
    }
}
