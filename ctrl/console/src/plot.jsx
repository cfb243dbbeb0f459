// A plot of what came by, second by second. The same is said in words beside it, and to whoever cannot see it.
const [WIDTH, HEIGHT] = [600, 120];

/** Lines over the last `kept` moments: [name, kind, value(moment)]; `kind` is the line's look: pass (whole), drop (dashed). */
export function Plot({ label, past, lines, kept = 120, unit }) {
  const values = lines.map(([, , value]) => past.map(value));
  const top = Math.max(1, ...values.flat());
  const x = (at) => WIDTH - ((past.length - 1 - at) * WIDTH) / (kept - 1);
  const y = (value) => HEIGHT - 4 - (value / top) * (HEIGHT - 12);
  const last = lines.map(([name], which) => `${name} ${unit(values[which].at(-1) ?? 0)}`).join(", ");
  return (
    <figure class="plot">
      <figcaption>
        {lines.map(([name, kind]) => <span class={`key ${kind}`}><svg viewBox="0 0 24 8" aria-hidden="true"><path class={kind} d="M0 4H24" /></svg> {name}</span>)}
        <span class="span">the last 2 min, up to {unit(top)}</span>
      </figcaption>
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label={`${label}: now ${last}, at most ${unit(top)} within two minutes`}>
        <path class="grid" d={`M0 ${y(top)}H${WIDTH}M0 ${y(top / 2)}H${WIDTH}M0 ${y(0)}H${WIDTH}`} />
        {values.map((series, which) => series.length > 1 && <path class={lines[which][1]} d={`M${series.map((value, at) => `${x(at).toFixed(1)} ${y(value).toFixed(1)}`).join("L")}`} />)}
      </svg>
    </figure>
  );
}
