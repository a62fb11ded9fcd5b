"use strict";
(async () => {
  const find = (id) => document.getElementById(id);
  const name = decodeURIComponent(location.pathname.split("/").pop());
  const say = (words) => { find("said").textContent = words; };
  const back = find("back");
  find("case").textContent = name;
  document.title = name + " · medseg view";
  let told;
  try {
    told = await (await fetch("../told/" + encodeURIComponent(name))).json();
  } catch {
    say("This case cannot be read.");
    return;
  }
  if (told.anchor) back.href = "../#" + told.anchor;
  for (const [id, step] of [["previous", -1], ["next", 1]]) {
    const other = told.cases[told.cases.indexOf(name) + step];
    find(id).disabled = !other;
    find(id).addEventListener("click", () => { location.href = encodeURIComponent(other); });
  }
  if (!document.createElement("canvas").getContext("webgl2")) {
    say("This browser shows no 3-D graphics (WebGL 2). The report has the pictures of this case.");
    return;
  }
  const options = {
    isRadiologicalConvention: true, show3Dcrosshair: true, dragAndDropEnabled: false, backColor: [0, 0, 0, 1],
    multiplanarShowRender: niivue.SHOW_RENDER.ALWAYS, multiplanarLayout: niivue.MULTIPLANAR_TYPE.GRID,
    sagittalNoseLeft: true, crosshairWidth: 0.15, loadingText: "", isResizeCanvas: true,
    onLocationChange: (at) => { find("place").textContent = at.string; },
  };
  const nv = new niivue.Niivue(options);
  await nv.attachToCanvas(find("canvas"));
  const volumes = told.layers.map((layer) => ({
    url: "../volume/" + encodeURIComponent(name) + "/" + encodeURIComponent(layer.file), name: layer.file,
    colormap: "gray", opacity: layer.mask ? 0 : 1,
  }));
  try { await nv.loadVolumes(volumes); } catch (error) { say("A volume cannot be shown: " + error.message); return; }

  const hidden = new Set();
  const paler = (c, layer) => layer.name === "reference" ? Math.round(c + (255 - c) * 0.55) : c;
  function colour(layer, i) {
    const map = { R: [0], G: [0], B: [0], A: [0], I: [0], labels: [""] };
    for (const label of told.labels) {
      const [r, g, b] = [1, 3, 5].map((at) => parseInt(label.colour.slice(at, at + 2), 16));
      map.R.push(paler(r, layer)); map.G.push(paler(g, layer)); map.B.push(paler(b, layer));
      map.A.push(hidden.has(label.value) ? 0 : 255); map.I.push(label.value); map.labels.push(label.name);
    }
    nv.volumes[i].setColormapLabel(map);
  }
  function paint() {
    told.layers.forEach((layer, i) => { if (layer.mask) colour(layer, i); });
    nv.updateGLVolume();
  }
  function box(words, checked, act, swatch) {
    const label = document.createElement("label"), input = document.createElement("input");
    input.type = "checkbox"; input.checked = checked;
    input.addEventListener("change", () => act(input.checked));
    label.append(input);
    if (swatch) { const mark = document.createElement("i"); mark.className = "swatch"; mark.style.background = swatch; label.append(mark); }
    label.append(" " + words);
    return label;
  }
  told.layers.forEach((layer, i) => {
    if (told.layers.length < 2) return;
    const slider = document.createElement("input");
    const start = layer.mask ? (layer.name === "reference" ? 0.4 : 0.5) : 1;
    Object.assign(slider, { type: "range", min: 0, max: 1, step: 0.05, value: start, ariaLabel: layer.name + " opacity" });
    const label = box(layer.name, true, (on) => { slider.disabled = !on; nv.setOpacity(i, on ? +slider.value : 0); });
    slider.addEventListener("input", () => nv.setOpacity(i, +slider.value));
    find("layers").append(label, slider);
    nv.setOpacity(i, start);
  });
  for (const label of told.labels) {
    const act = (on) => { if (on) hidden.delete(label.value); else hidden.add(label.value); paint(); };
    find("labels").append(box(label.name, true, act, label.colour));
  }
  paint();
  const image = told.layers[0].mask ? null : nv.volumes[0];
  for (const [id, key] of [["low", "cal_min"], ["high", "cal_max"]]) {
    const input = find(id);
    input.disabled = !image;
    if (!image) continue;
    input.value = +image[key].toPrecision(4);
    input.addEventListener("change", () => { image[key] = +input.value; nv.updateGLVolume(); });
  }
  nv.onIntensityChange = (volume) => {
    if (volume !== image) return;
    find("low").value = +volume.cal_min.toPrecision(4);
    find("high").value = +volume.cal_max.toPrecision(4);
  };
  find("slices").addEventListener("change", () => nv.setSliceType(+find("slices").value));
  nv.setSliceType(3);
  say("");
  document.body.dataset.ready = String(nv.volumes.length);
})();
