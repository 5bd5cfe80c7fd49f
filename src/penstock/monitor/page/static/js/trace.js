// Records a trace and hands it to the browser as a download.
import { get } from "./api.js";
import { byId, make, setText } from "./dom.js";

export class Trace {
  constructor() {
    byId("trace-form").addEventListener("submit", (event) => { event.preventDefault(); this.record(); });
  }

  setProcesses(rows) { this.rows = rows.filter((row) => row.state !== "ended"); }

  async record() {
    const note = byId("trace-note");
    const button = byId("trace-form").querySelector("button");
    const seconds = Number(byId("trace-seconds").value);
    if (!this.rows || this.rows.length !== 1) { setText(note, "Choose one worker to record its trace."); return; }
    button.disabled = true;
    setText(note, `recording for ${seconds} s …`);
    try {
      const response = await get("/api/trace", { pid: this.rows[0].pid, seconds });
      const name = /filename="([^"]+)"/.exec(response.headers.get("Content-Disposition") || "")?.[1] || "trace.json";
      const blob = await response.blob();
      const link = make("a", { href: URL.createObjectURL(blob), download: name });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60000);
      setText(note, `${name}: ${Math.ceil(blob.size / 1024)} KiB`);
    } catch (error) { setText(note, error.message); }
    button.disabled = false;
  }
}
