//! The same small job in the words of each agent's own tools: write a file, look at it with a command, say goodbye.

use serde_json::{Value, json};

use crate::script::{Block, Script, Turn};

/// The job for an agent by its name; `None` for an agent whose tools are not known here. The agent writes `content`
/// to `path` (absolute), then prints it with a command whose output has to come back.
pub fn job(agent: &str, api_key: &str, path: &str, content: &str) -> Option<Script> {
    let patch = format!("*** Begin Patch\n*** Add File: {path}\n+{content}\n*** End Patch\n");
    let show = format!("cat {path} && uname -r");
    let (write, look): (Block, Block) = match agent {
        "claude" => (
            Block::tool("Write", json!({ "file_path": path, "content": content })),
            Block::tool(
                "Bash",
                json!({ "command": show, "description": "Look at the file" }),
            ),
        ),
        // Codex has one tool, which runs JavaScript that calls the others.
        "codex" => (
            exec(&format!(
                "text(await tools.apply_patch({}));",
                Value::from(patch)
            )),
            exec(&format!(
                "const seen = await tools.exec_command({{ cmd: {} }});\ntext(seen.output);",
                Value::from(show)
            )),
        ),
        "copilot" => (
            Block::tool(
                "bash",
                json!({
                    "command": format!("printf '%s\\n' '{content}' >{path}"), "description": "Write the file",
                }),
            ),
            Block::tool(
                "bash",
                json!({ "command": show, "description": "Look at the file" }),
            ),
        ),
        "gemini" => (
            Block::tool(
                "write_file",
                json!({ "file_path": path, "content": content }),
            ),
            Block::tool(
                "run_shell_command",
                json!({ "command": show, "description": "Look at it" }),
            ),
        ),
        "opencode" => (
            Block::tool("apply_patch", json!({ "patchText": patch })),
            Block::tool("bash", json!({ "command": show })),
        ),
        // It offers other tools to models that it does not know.
        "opencode-local" => (
            Block::tool("write", json!({ "filePath": path, "content": content })),
            Block::tool("bash", json!({ "command": show })),
        ),
        _ => return None,
    };
    Some(Script::new(
        api_key,
        vec![
            Turn::of(vec![Block::text("I write the file."), write]),
            Turn::of(vec![Block::text("I look at it."), look]),
            Turn::of(vec![Block::text(
                "Done: the file is written and looked at.",
            )])
            .expecting(&[content]),
        ],
    ))
}

fn exec(script: &str) -> Block {
    Block::tool("exec", json!({ "input": script }))
}
