// fetch() as Node has it. Versions before 24 take no proxy from the environment by themselves.
import { EnvHttpProxyAgent, setGlobalDispatcher } from "undici";

if (process.env.https_proxy) setGlobalDispatcher(new EnvHttpProxyAgent());
try {
  const answer = await fetch(process.argv[2], { method: "POST", body: "posted" });
  console.log(answer.status, await answer.text());
  if (!answer.ok) process.exitCode = 22;
} catch (error) {
  console.log(String(error), String(error.cause));
  process.exitCode = 1;
}
