//! Message types of Protobuf: compiled from a `.proto`'s text, or read from a descriptor set.

use std::{collections::BTreeMap, fmt, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD};
use prost_reflect::{DescriptorPool, FileDescriptor, MessageDescriptor, prost::Message, prost_types::FileDescriptorProto};
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

use crate::error::{Error, Result};

/// What the text of a source's own schema is called among the files that it may import.
const ROOT: &str = "schema.proto";

/// Longer texts, and those whose brackets nest deeper, are no schema that a person has written: the compiler recurses.
const LONGEST: usize = 4 * 1024 * 1024;
const DEEPEST: usize = 64;

/// How messages of a type are read from payloads.
#[derive(Clone)]
pub struct ProtobufDef {
    message: MessageDescriptor,
    framing: Framing,
}

/// What stands before a message in its payload. `WITH ('protobuf.framing' = 'none')`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Framing {
    /// Nothing.
    #[default]
    None,
    /// What serialisers of a schema registry write: a zero byte, the schema's id, which message of the schema it is.
    Confluent,
}

impl ProtobufDef {
    /// Messages of this type, so framed.
    pub fn new(message: MessageDescriptor, framing: Framing) -> Self {
        Self { message, framing }
    }

    /// The type.
    pub fn message(&self) -> &MessageDescriptor {
        &self.message
    }

    /// What stands before a message.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Which message of its file the type is: the indexes from the outermost to the innermost, as a registry's frame names it.
    pub fn indexes(&self) -> Vec<u64> {
        // A path of a descriptor is pairs of a field's number (messages of a file are 4, those in a message 3) and an index.
        self.message.path().iter().skip(1).step_by(2).map(|index| u64::try_from(*index).unwrap_or_default()).collect()
    }
}

impl PartialEq for ProtobufDef {
    fn eq(&self, other: &Self) -> bool {
        let files = |def: &Self| def.message.parent_pool().encode_to_vec();
        self.framing == other.framing && self.message.full_name() == other.message.full_name() && files(self) == files(other)
    }
}

impl Eq for ProtobufDef {}

impl fmt::Debug for ProtobufDef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProtobufDef").field("message", &self.message.full_name()).field("framing", &self.framing).finish()
    }
}

/// Compiles the text of a `.proto`. What it imports is one of `imports`, by the name that it imports it by, or Google's own. The file that was
/// compiled is the last one of the pool's.
pub fn compile_proto(text: &str, imports: &BTreeMap<String, String>) -> Result<FileDescriptor> {
    for text in std::iter::once(text).chain(imports.values().map(String::as_str)) {
        check_text(text)?;
    }
    if let Some(file) = serialised(text) {
        let mut compiler = compiler(ROOT, String::new(), imports);
        for import in &file.dependency {
            compiler.open_file(import).map_err(refused)?;
        }
        let mut pool = compiler.descriptor_pool();
        let name = file.name().to_string();
        pool.add_file_descriptor_proto(file).map_err(|error| Error::Invalid(format!("the Protobuf schema can't be read: {error}")))?;
        return pool.get_file_by_name(&name).ok_or_else(|| Error::Internal("a Protobuf schema has no file of its own".into()));
    }
    let mut compiler = compiler(ROOT, text.into(), imports);
    compiler.open_file(ROOT).map_err(refused)?;
    let pool = compiler.descriptor_pool();
    pool.get_file_by_name(ROOT).ok_or_else(|| Error::Internal("a Protobuf schema has no file of its own".into()))
}

fn compiler(name: &str, text: String, imports: &BTreeMap<String, String>) -> protox::Compiler {
    let mut texts = imports.clone();
    texts.insert(name.into(), text);
    let mut resolver = ChainFileResolver::new();
    resolver.add(Texts(texts));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true);
    compiler
}

fn refused(error: protox::Error) -> Error {
    Error::Invalid(format!("the Protobuf schema can't be compiled: {}", one_line(&error)))
}

/// A schema that is a `FileDescriptorProto` in base64, which is how some serialisers register theirs.
fn serialised(text: &str) -> Option<FileDescriptorProto> {
    let bytes = STANDARD.decode(text.trim()).ok()?;
    FileDescriptorProto::decode(bytes.as_slice()).ok().filter(|file| file.name.is_some() && !file.message_type.is_empty())
}

/// Reads a `FileDescriptorSet`, as `protoc --include_imports --descriptor_set_out` writes it.
pub fn read_descriptor_set(bytes: &[u8]) -> Result<DescriptorPool> {
    let mut pool = DescriptorPool::new();
    // Google's own files may be left out of a set.
    if let Err(first) = pool.decode_file_descriptor_set(bytes) {
        pool = DescriptorPool::global();
        if pool.decode_file_descriptor_set(bytes).is_err() {
            return Err(Error::Invalid(format!("the Protobuf descriptor set can't be read: {first}")));
        }
    }
    Ok(pool)
}

/// The message type of this name.
pub fn message_of(pool: &DescriptorPool, name: &str) -> Result<MessageDescriptor> {
    let known = || {
        let names = pool.all_messages().filter(|message| message.package_name() != "google.protobuf" && !message.is_map_entry());
        names.map(|message| message.full_name().to_string()).take(20).collect::<Vec<_>>().join(", ")
    };
    pool.get_message_by_name(name.trim_start_matches('.'))
        .filter(|message| !message.is_map_entry())
        .ok_or_else(|| Error::Invalid(format!("the Protobuf schema has no message {name}: it has {}; write its full name, with the package", known())))
}

/// The one message that a file declares at its top, where it needs no name.
/// `option` is the one that would say its name.
pub fn only_message(file: &FileDescriptor, option: &str) -> Result<MessageDescriptor> {
    let mut messages = file.messages();
    match (messages.next(), messages.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err(Error::Invalid("the Protobuf schema declares no message: add one".into())),
        (Some(_), Some(_)) => {
            let names: Vec<String> = file.messages().map(|message| message.full_name().to_string()).take(20).collect();
            Err(Error::Invalid(format!("the Protobuf schema declares several messages, {}: say which is meant with '{option}'", names.join(", "))))
        }
    }
}

/// Keeps away what would let the compiler recurse without end.
fn check_text(text: &str) -> Result<()> {
    if text.len() > LONGEST {
        return Err(Error::Invalid(format!("the Protobuf schema is {} bytes long; at most {LONGEST} are read", text.len())));
    }
    let mut depth = 0usize;
    for byte in text.bytes() {
        match byte {
            b'{' | b'[' | b'<' | b'(' => depth += 1,
            b'}' | b']' | b'>' | b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEEPEST {
            return Err(Error::Invalid(format!("the Protobuf schema's brackets nest deeper than {DEEPEST}")));
        }
    }
    Ok(())
}

/// A compiler's error without its drawing.
fn one_line(error: &protox::Error) -> String {
    let text = error.to_string();
    let parts: Vec<&str> = text.split_whitespace().collect();
    parts.join(" ").replace(ROOT, "its text")
}

/// The texts that a schema is made of, by name.
#[derive(Debug)]
struct Texts(BTreeMap<String, String>);

impl FileResolver for Texts {
    fn resolve_path(&self, _path: &Path) -> Option<String> {
        None
    }

    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match self.0.get(name) {
            Some(text) => File::from_source(name, text),
            None => Err(protox::Error::file_not_found(name)),
        }
    }
}
