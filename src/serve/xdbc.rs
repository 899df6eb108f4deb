//! The types of the dialect as ODBC and JDBC describe types.

use std::sync::LazyLock;

use arrow_flight::sql::{
    Nullable, Searchable, XdbcDataType, XdbcDatetimeSubcode,
    metadata::{XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder},
};

/// All types.
pub(crate) static TYPES: LazyLock<XdbcTypeInfoData> = LazyLock::new(|| {
    let mut builder = XdbcTypeInfoDataBuilder::new();
    types().into_iter().for_each(|info| builder.append(info));
    builder.build().expect("the columns are built of one value a type")
});

fn types() -> Vec<XdbcTypeInfo> {
    vec![
        plain("BOOLEAN", XdbcDataType::XdbcBit, 1),
        number("TINYINT", XdbcDataType::XdbcTinyint, 3, 10),
        number("SMALLINT", XdbcDataType::XdbcSmallint, 5, 10),
        number("INT", XdbcDataType::XdbcInteger, 10, 10),
        number("BIGINT", XdbcDataType::XdbcBigint, 19, 10),
        number("REAL", XdbcDataType::XdbcReal, 24, 2),
        number("DOUBLE", XdbcDataType::XdbcDouble, 53, 2),
        XdbcTypeInfo {
            create_params: Some(vec!["precision".into(), "scale".into()]),
            minimum_scale: Some(0),
            maximum_scale: Some(76),
            fixed_prec_scale: false,
            ..number("DECIMAL", XdbcDataType::XdbcDecimal, 76, 10)
        },
        XdbcTypeInfo { case_sensitive: true, ..quoted("TEXT", XdbcDataType::XdbcVarchar, "'", i32::MAX) },
        quoted("BYTEA", XdbcDataType::XdbcVarbinary, "X'", i32::MAX),
        // The date's subcode has the number of the year's: the protocol's enumeration gives 1 two names, of which Rust keeps one.
        time("DATE", XdbcDataType::XdbcDate, XdbcDatetimeSubcode::XdbcSubcodeYear, 10),
        time("TIME", XdbcDataType::XdbcTime, XdbcDatetimeSubcode::XdbcSubcodeTime, 18),
        time("TIMESTAMP", XdbcDataType::XdbcTimestamp, XdbcDatetimeSubcode::XdbcSubcodeTimestamp, 29),
    ]
}

fn plain(name: &str, data_type: XdbcDataType, size: i32) -> XdbcTypeInfo {
    XdbcTypeInfo {
        type_name: name.into(),
        data_type,
        column_size: Some(size),
        literal_prefix: None,
        literal_suffix: None,
        create_params: None,
        nullable: Nullable::NullabilityNullable,
        case_sensitive: false,
        searchable: Searchable::Full,
        unsigned_attribute: None,
        fixed_prec_scale: false,
        auto_increment: None,
        local_type_name: Some(name.into()),
        minimum_scale: None,
        maximum_scale: None,
        sql_data_type: data_type,
        datetime_subcode: None,
        num_prec_radix: None,
        interval_precision: None,
    }
}

fn number(name: &str, data_type: XdbcDataType, size: i32, radix: i32) -> XdbcTypeInfo {
    XdbcTypeInfo { unsigned_attribute: Some(false), auto_increment: Some(false), num_prec_radix: Some(radix), ..plain(name, data_type, size) }
}

fn quoted(name: &str, data_type: XdbcDataType, prefix: &str, size: i32) -> XdbcTypeInfo {
    XdbcTypeInfo { literal_prefix: Some(prefix.into()), literal_suffix: Some("'".into()), ..plain(name, data_type, size) }
}

fn time(name: &str, data_type: XdbcDataType, subcode: XdbcDatetimeSubcode, size: i32) -> XdbcTypeInfo {
    XdbcTypeInfo { sql_data_type: XdbcDataType::XdbcDatetime, datetime_subcode: Some(subcode), ..quoted(name, data_type, &format!("{name} '"), size) }
}
