// Sets the theme before the first paint: the stored choice, else the system's. Not a module, so that it runs first.
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const stored = () => { try { return localStorage.getItem("penstock-theme") || "auto"; } catch { return "auto"; } };
  const apply = () => {
    const choice = stored();
    const isDark = choice === "dark" || (choice !== "light" && dark.matches);
    document.documentElement.dataset.theme = isDark ? "dark" : "light";
    document.dispatchEvent(new Event("themechange"));
  };
  dark.addEventListener("change", apply);
  document.addEventListener("DOMContentLoaded", () => {
    const select = document.getElementById("theme");
    select.value = stored();
    select.addEventListener("change", () => {
      try { localStorage.setItem("penstock-theme", select.value); } catch { /* a private window */ }
      document.documentElement.dataset.theme = select.value;
      apply();
    });
  });
  apply();
})();
