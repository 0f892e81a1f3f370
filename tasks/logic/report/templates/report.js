// The browser of questions. The page is complete without it: it only filters and opens what the page already holds.
(() => {
  const data = JSON.parse(document.getElementById("browser-data").textContent);
  const form = document.getElementById("browser-filters");
  const list = document.getElementById("browser-list");
  const count = document.getElementById("browser-count");
  const more = document.getElementById("browser-more");
  const PAGE = 15;
  let found = data.questions;
  let shown = 0;

  const texts = data.questions.map((each) =>
    [each.id, each.question, ...each.facts, each.draft, ...each.asked, each.teacher, ...each.replies.map((reply) => reply.text)].join("\n").toLowerCase());

  const make = (tag, kind, text) => {
    const made = document.createElement(tag);
    if (kind) made.className = kind;
    if (text !== undefined) made.textContent = text;
    return made;
  };

  const block = (into, heading, text) => {
    if (!text) return;
    into.append(make("h3", "", heading), make("pre", "text", text));
  };

  const lines = (into, heading, items) => {
    if (!items.length) return;
    const points = make("ul");
    points.append(...items.map((item) => make("li", "", item)));
    into.append(make("h3", "", heading), points);
  };

  const body = (each) => {
    const made = make("div", "answers");
    lines(made, "Facts", each.facts);
    block(made, "The student's draft", each.draft);
    lines(made, "What the draft asks", each.asked);
    block(made, "The teacher's reply", each.teacher);
    for (const reply of each.replies) {
      block(made, `${data.models[reply.model].label} (${reply.arm}) → ${reply.verdict}, ${reply.right ? "right" : "wrong"}`, reply.text || "(no text)");
    }
    made.append(make("p", "soft", `Question id ${each.id}`));
    return made;
  };

  const entry = (each) => {
    const made = make("details", "entry");
    const head = make("summary", "", `${each.question} `);
    head.append(make("span", "chip quiet", `gold: ${each.gold}`));
    const marks = make("div", "marks");
    for (const reply of each.replies) {
      marks.append(make("span", `chip ${reply.right ? "pass" : "fail"}`, `${reply.right ? "✓" : "✗"} ${data.models[reply.model].label}`));
    }
    head.append(marks);
    made.append(head);
    made.addEventListener("toggle", () => { if (made.open && made.children.length === 1) made.append(body(each)); });
    return made;
  };

  const grow = () => {
    list.append(...found.slice(shown, shown + PAGE).map(entry));
    shown = Math.min(shown + PAGE, found.length);
    more.hidden = shown >= found.length;
    more.textContent = `Show ${Math.min(PAGE, found.length - shown)} more`;
    const listed = shown < found.length ? `, the first ${shown} are listed` : "";
    count.textContent = `${found.length} of ${data.questions.length} questions${listed}.`;
  };

  const wanted = () => new URLSearchParams([...new FormData(form)].filter(([, value]) => value));

  const filter = () => {
    const asked = wanted();
    const word = (asked.get("q") || "").trim().toLowerCase();
    found = data.questions.filter((each, at) => texts[at].includes(word) && data.models.every((model, place) => {
      const verdict = asked.get(model.name);
      return !verdict || each.replies.some((reply) => reply.model === place && reply.right === (verdict === "right"));
    }));
    shown = 0;
    list.replaceChildren();
    grow();
  };

  const remember = () => {
    const asked = wanted().toString();
    history.replaceState(null, "", asked ? `#browse?${asked}` : "#browse");
  };

  const recall = () => {
    if (!location.hash.startsWith("#browse?")) return;
    const asked = new URLSearchParams(location.hash.slice("#browse?".length));
    for (const field of form.elements) if (field.name) field.value = asked.get(field.name) || "";
    document.getElementById("browse").scrollIntoView();
  };

  form.addEventListener("input", () => { filter(); remember(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => requestAnimationFrame(() => { filter(); remember(); }));
  more.addEventListener("click", () => {
    const last = list.children.length;
    grow();
    list.children[last].querySelector("summary").focus();
  });
  window.addEventListener("hashchange", () => { recall(); filter(); });
  form.hidden = false;
  recall();
  filter();
})();
