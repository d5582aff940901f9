// What is known of one row, beside what its line in the table says.
"use strict";

const TITLES = [
  ["Service", "service"], ["Product", "product"], ["Version", "version"], ["Newest version seen", "newest"],
  ["Further", "info"],
  ["Host name it gives itself", "host"], ["Scanned by the name", "given"], ["System", "os"], ["Device", "device"],
  ["CPE", "cpe"], ["State", "state"], ["Verdict", "verdict"], ["Reason", "reason"],
  ["Name from", "method"], ["Confidence", "conf"],
];
const EVIDENCE = { probe: "Probe", line: "Line of the database", soft: "Soft match", sent: "Probe that was sent",
  file: "File of the line", recog: "Recog" };

function moment(milliseconds) {
  const date = new Date(milliseconds);
  return isNaN(date) ? "beyond all calendars" : date.toISOString().replace("T", " ").replace("Z", " UTC");
}

// JSON on several lines; a table of strangers may hold something else, which is told as it is.
function laidOut(value) {
  try {
    return JSON.stringify(JSON.parse(value), null, 2);
  } catch {
    return value;
  }
}

class Details {
  constructor(layout) {
    this.layout = layout;
  }

  show(known, leftOut) {
    this.leftOut = leftOut;
    id("details-title").textContent = shown(`${known.address} ${known.port}`);
    id("details-body").replaceChildren(
      this.facts("What answers", TITLES.map(([title, name]) => [title, known[name]])),
      this.facts("How it was recognised", [
        ...this.object(known.evidence).map(([name, value]) => [EVIDENCE[name] ?? name, value]),
        ["Database", known.database],
        ...this.object(known.pseudo).map(([name, value]) => [`Same answer: ${name}`, value]),
      ]),
      this.facts("When", [
        ["Begun", moment(known.started)],
        ["Took", `${number.format(known.elapsed_ms)} ms`],
        ["Connections", number.format(known.connections)],
        ["Received", `${number.format(known.bytes)} bytes`],
        ["Read from", this.layout.sources[known.source]],
      ]),
      this.facts("TLS", this.long(known.tls, (value) => this.object(value))),
      this.block("Post-processing", this.long(known.post, laidOut)),
      this.block("Fingerprint", this.long(known.fingerprint, (value) => value), true),
    );
    id("details").showModal();
  }

  // A text that the page may have had no room for: then a sentence, as the only pair of a list.
  long(value, read) {
    if (value !== this.leftOut) return value ? read(value) : "";
    return [["", "left out of the page, which would be too large; the rows that it was made of have it"]];
  }

  object(value) {
    return value ? Object.entries(JSON.parse(value)).filter(([, own]) => own !== null && own !== "" && own !== false) : [];
  }

  facts(title, pairs) {
    const told = (pairs || []).filter(([, value]) => value !== "" && value !== 0 && value !== undefined);
    if (!told.length) return "";
    const list = made("dl");
    for (const [name, value] of told) {
      list.append(made("dt", { say: name.replaceAll("_", " ") }), made("dd", {}, made("bdi", { say: [].concat(value).join(", ") })));
    }
    return made("section", {}, made("h3", { say: title }), list);
  }

  block(title, value, copied = false) {
    if (!value) return "";
    const lines = Array.isArray(value) ? value[0][1] : value;
    const pre = made("pre", { tabindex: "0" });
    pre.textContent = lines.split("\n").map(shown).join("\n");
    const head = made("h3", { say: title });
    if (copied && !Array.isArray(value)) head.append(" ", made("button", { type: "button", cls: "copy", say: "Copy" }));
    return made("section", {}, head, pre);
  }
}
