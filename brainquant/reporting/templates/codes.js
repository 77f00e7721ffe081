// Plays the sounds of codes, one at a time, and reads the matrix of codes and phones.
(function () {
  "use strict";
  const make = (name, parent, properties) =>
    parent.appendChild(Object.assign(document.createElement(name), properties));
  const sounds = {};
  const soundOf = (button) => {
    const anchor = button.closest("[data-sounds]").dataset.sounds;
    sounds[anchor] ??= JSON.parse(document.getElementById(anchor).textContent);
    const [text, seconds, start, end, peaks, mp3] = sounds[anchor][button.dataset.sound];
    return {text, seconds, start, end, peaks, mp3};
  };

  function listen() {
    const buttons = [...document.querySelectorAll("button.play")];
    if (!buttons.length) return;
    const player = make("div", document.body, {className: "player", hidden: true});
    player.setAttribute("role", "region");
    player.setAttribute("aria-label", "Player");
    const audio = make("audio", player, {});
    const canvas = make("canvas", player, {width: 384, height: 96});
    canvas.setAttribute("aria-hidden", "true");
    const line = make("p", player, {});
    line.setAttribute("aria-live", "polite");
    const stopper = make("button", player, {type: "button", textContent: "Stop"});
    let current = null;

    function draw(sound, now) {
      const pen = canvas.getContext("2d");
      const colour = (name) => {
        canvas.style.color = `var(${name})`;
        return getComputedStyle(canvas).color;
      };
      const {width, height} = canvas, wide = width / sound.peaks.length;
      const x = (seconds) => (seconds / sound.seconds) * width;
      pen.clearRect(0, 0, width, height);
      pen.globalAlpha = 0.25;
      pen.fillStyle = colour("--accent");
      pen.fillRect(x(sound.start), 0, x(sound.end) - x(sound.start), height);
      pen.globalAlpha = 1;
      pen.fillStyle = colour("--ink");
      for (let i = 0; i < sound.peaks.length; i++) {
        const high = Math.max(2, (parseInt(sound.peaks[i], 36) / 35) * height);
        pen.fillRect(i * wide + 1, (height - high) / 2, wide - 2, high);
      }
      pen.fillStyle = colour("--bad");
      pen.fillRect(x(now) - 1, 0, 3, height);
    }

    // The line over the picture of a whole clip.
    function point(button, seconds) {
      const picture = button.closest("figure")?.querySelector("svg.clip");
      const cursor = picture?.querySelector(".cursor");
      if (!cursor) return;
      cursor.setAttribute("visibility", seconds === null ? "hidden" : "visible");
      if (seconds === null) return;
      const x = seconds * picture.dataset.scale, frame = picture.parentElement;
      cursor.setAttribute("transform", `translate(${x} 0)`);
      const seen = x + Number(picture.dataset.left) - frame.scrollLeft;
      if (seen > frame.clientWidth - 40 || seen < 0) frame.scrollLeft = x - 40;
    }

    function follow() {
      if (!current) return;
      draw(current.sound, audio.currentTime);
      point(current.button, audio.currentTime);
      requestAnimationFrame(follow);
    }

    function stop() {
      audio.pause();
      if (!current) return;
      current.button.classList.remove("playing");
      point(current.button, null);
      draw(current.sound, 0);
      current = null;
    }

    function play(button) {
      const sound = soundOf(button);
      stop();
      current = {button, sound};
      button.classList.add("playing");
      player.hidden = false;
      const name = button.getAttribute("aria-label").replace(/^Play /, "").replace(/, clip .*$/s, "");
      line.textContent = name.startsWith("segment") ? `${name}: ${sound.text}` : sound.text;
      audio.src = "data:audio/mpeg;base64," + sound.mp3;
      audio.play().catch((error) => {
        line.textContent = `This browser cannot play the sound: ${error.message}`;
        stop();
      });
      requestAnimationFrame(follow);
    }

    audio.addEventListener("ended", stop);
    stopper.addEventListener("click", () => {
      const button = current?.button;
      stop();
      player.hidden = true;
      button?.focus();
    });
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape") stop();
    });

    // One stop of the Tab key for each group; arrows move within it.
    const grids = new Map();
    for (const button of buttons) {
      const table = button.closest("table") ?? button;
      if (!grids.has(table)) grids.set(table, []);
      const rows = grids.get(table), row = button.closest("tr") ?? button;
      if (rows.at(-1)?.row !== row) rows.push({row, buttons: []});
      rows.at(-1).buttons.push(button);
      button.tabIndex = rows.length === 1 && rows[0].buttons.length === 1 ? 0 : -1;
      button.addEventListener("click", () => {
        if (current?.button === button) stop();
        else play(button);
      });
      const tell = () => { button.title ||= soundOf(button).text; };
      button.addEventListener("pointerenter", tell);
      button.addEventListener("focus", tell);
      const y = rows.length - 1, x = rows.at(-1).buttons.length - 1;
      button.addEventListener("keydown", (event) => {
        const moves = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]};
        const [dy, dx] = moves[event.key] ?? [0, 0];
        const to = rows[y + dy]?.buttons;
        const next = to?.[Math.min(x + dx, to.length - 1)];
        if ((!dy && !dx) || !next) return;
        event.preventDefault();
        next.focus();
      });
      button.addEventListener("focus", () => {
        for (const {buttons: others} of rows) for (const other of others) other.tabIndex = -1;
        button.tabIndex = 0;
      });
    }
  }

  function readMatrix(figure) {
    const group = figure.querySelector("g[data-codes]"), image = group.querySelector("image");
    const codes = group.dataset.codes.split(" "), phones = group.dataset.phones.split("\n");
    const readout = figure.querySelector(".readout");
    const picture = new Image();
    picture.src = image.getAttribute("href");
    picture.decode().then(() => {
      const canvas = document.createElement("canvas");
      canvas.width = codes.length;
      canvas.height = phones.length;
      const pen = canvas.getContext("2d", {willReadFrequently: true});
      pen.drawImage(picture, 0, 0);
      readout.hidden = false;
      readout.textContent = "Point at the matrix to read it.";
      group.addEventListener("pointermove", (event) => {
        const box = image.getBoundingClientRect();
        const place = (at, size, count) => Math.min(count - 1, Math.max(0, Math.floor((at / size) * count)));
        const column = place(event.clientX - box.left, box.width, codes.length);
        const row = place(event.clientY - box.top, box.height, phones.length);
        const share = pen.getImageData(column, row, 1, 1).data[3] / 255;
        readout.textContent =
          `Code ${codes[column]}: ${Math.round(100 * share)} % of its frames are ${phones[row]}.`;
      });
    });
  }

  listen();
  document.querySelectorAll("figure.matrix").forEach(readMatrix);
})();
