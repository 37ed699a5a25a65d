// Copies the libraries the page uses out of node_modules, so that serving the page needs neither npm nor a build.
import { copyFile, mkdir, readFile, writeFile } from "node:fs/promises";

const libraries = [
  {
    name: "marked",
    purpose: "Markdown to HTML",
    module: "lib/marked.esm.js",
    as: "marked.esm.js",
    licences: { LICENSE: "LICENSE-marked.txt" },
  },
  {
    name: "dompurify",
    purpose: "sanitises that HTML",
    module: "dist/purify.es.mjs",
    // Some static servers do not know .mjs, and browsers refuse a module without a JavaScript type.
    as: "purify.es.js",
    licences: { LICENSE: "LICENSE-dompurify-Apache-2.0.txt", "LICENSE-MPL": "LICENSE-dompurify-MPL-2.0.txt" },
  },
];

const here = new URL("./", import.meta.url);
const target = new URL("assets/vendor/", here);
const rows = [];

await mkdir(target, { recursive: true });
for (const library of libraries) {
  const source = new URL(`node_modules/${library.name}/`, here);
  const manifest = JSON.parse(await readFile(new URL("package.json", source), "utf8"));

  const code = await readFile(new URL(library.module, source), "utf8");
  // The maps are not served: devtools would ask for them and log a 404.
  const withoutMap = code.replace(/^\/\/# sourceMappingURL=.*$/gm, "").trimEnd();
  await writeFile(new URL(library.as, target), withoutMap + "\n");

  for (const [from, to] of Object.entries(library.licences)) {
    await copyFile(new URL(from, source), new URL(to, target));
  }
  const licences = Object.values(library.licences).map((file) => `[${file}](${file})`).join(", ");
  rows.push(
    `| ${library.name} | ${manifest.version} | ${library.purpose} | ${library.as} | ${manifest.license}: ${licences} |`,
  );
}

await writeFile(
  new URL("README.md", target),
  [
    "# Vendored libraries",
    "",
    "Unchanged apart from the source map comment, which is removed. The versions are pinned in `web/package.json`; to",
    "renew the files run `npm ci && npm run vendor` in `web/`, which rewrites this list too.",
    "",
    "| library | version | what for | file | licence |",
    "|---|---|---|---|---|",
    ...rows,
    "",
  ].join("\n"),
);
