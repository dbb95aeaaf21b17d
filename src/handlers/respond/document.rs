//! A YAML value as the template of a JSON text.

use crate::contract::Compiler;
use crate::yaml::{Kind, Located, Node};

/// The template whose rendering, values escaped for JSON, is the document. Mistakes in its strings are reported at their
/// places.
pub(super) fn template(node: &Node, compiler: &mut Compiler) -> Option<String> {
    let mut out = String::new();
    write(node, compiler, &mut out).then_some(out)
}

/// Whether it is sound; goes on after a mistake to find them all.
fn write(node: &Node, compiler: &mut Compiler, out: &mut String) -> bool {
    match &node.kind {
        Kind::Null => out.push_str("null"),
        Kind::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Kind::Int(value) => out.push_str(&value.to_string()),
        Kind::Float(value) => out.push_str(&serde_json::Value::from(*value).to_string()),
        Kind::Str(text) => {
            // Quoting changes only what no name of a variable holds, so the variables survive it.
            out.push_str(&serde_json::Value::from(&*text.text).to_string());
            return compiler.template(&Located::new(text.text.to_string(), node.place)).is_some();
        }
        Kind::Seq(items) => {
            let mut sound = true;
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { "," });
                sound &= write(item, compiler, out);
            }
            out.push(']');
            return sound;
        }
        Kind::Map(entries) => {
            let mut sound = true;
            // Braces of the document itself are doubled: it is the text of a template.
            out.push_str("{{");
            for (index, entry) in entries.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { "," });
                let key = serde_json::Value::from(&*entry.key.text).to_string();
                out.push_str(&key.replace('{', "{{").replace('}', "}}"));
                out.push(':');
                sound &= write(&entry.value, compiler, out);
            }
            out.push_str("}}");
            return sound;
        }
    }
    true
}
