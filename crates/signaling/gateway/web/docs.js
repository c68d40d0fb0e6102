// The API's page: shows /openapi.json to people. Whatever it says is put into the page as text, never as markup.

import { request } from '/http.js';

/** What most readers look for; other chapters follow. */
const FIRST = ['join', 'WHIP and WHEP', 'rooms', 'participants', 'tracks', 'events'];
const METHODS = ['get', 'post', 'put', 'patch', 'delete', 'options'];

/** An element with attributes and children; a string is text. */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const code = (text) => element('code', {}, text);

/** A text with code spans, which is all of Markdown that the document uses within a paragraph. */
const spans = (text) => text.split(/(`[^`]+`)/).map((part) => (part.startsWith('`') ? code(part.slice(1, -1)) : part));

const paragraphs = (text = '') => text.split(/\n\n+/).filter(Boolean).map((paragraph) => element('p', {}, ...spans(paragraph)));

const schemaName = (schema) => schema?.$ref?.split('/').pop();

/** A schema in a line: its name as a link, or its type. */
function inline(schema) {
  if (!schema || schema === true) return ['anything'];
  const name = schemaName(schema);
  if (name) return [element('a', { href: `#schema-${name}` }, name)];
  const either = schema.oneOf ?? schema.anyOf ?? schema.allOf;
  if (either) return either.flatMap((one, index) => (index ? [' or ', ...inline(one)] : inline(one)));
  if (schema.enum) return schema.enum.flatMap((value, index) => [index ? ' | ' : '', code(JSON.stringify(value))]);
  const types = [schema.type].flat().filter(Boolean);
  if (types.includes('array')) return ['list of ', ...inline(schema.items)];
  if (schema.additionalProperties) return ['map of ', ...inline(schema.additionalProperties)];
  const limits = [];
  if (schema.minimum !== undefined) limits.push(`from ${schema.minimum}`);
  if (schema.maximum !== undefined) limits.push(`to ${schema.maximum}`);
  if (schema.maxLength !== undefined) limits.push(`${schema.minLength ?? 0} to ${schema.maxLength} characters`);
  if (schema.format) limits.push(schema.format);
  return [types.join(' or ') || 'object', limits.length ? ` (${limits.join(', ')})` : ''];
}

/** The fields of an object, or the alternatives of a choice. */
function body(schema) {
  const parts = [...(schema.allOf ?? [schema])];
  const fields = parts.flatMap((part) => Object.entries(part.properties ?? {}).map(([name, value]) => [name, value, part]));
  const choices = parts.flatMap((part) => part.oneOf ?? part.anyOf ?? []);
  const rest = parts.filter((part) => schemaName(part)).map((part) => element('p', {}, 'And the fields of ', ...inline(part), '.'));
  return [
    fields.length ? table(['Field', 'What'], fields.map(([name, value, part]) => [
      [code(name), part.required?.includes(name) ? null : element('span', { class: 'key' }, ' optional')],
      [...inline(value), ...paragraphs(value.description)],
    ])) : null,
    ...choices.map((choice) => element('div', {}, element('h3', {}, 'Either: ', ...inline(choice)), ...paragraphs(choice.description), ...body(choice))),
    ...rest,
    !fields.length && !choices.length && !rest.length ? element('p', {}, ...inline(schema)) : null,
  ];
}

function table(heads, rows) {
  const row = (cells, name) => element('tr', {}, ...cells.map((cell) => element(name, {}, ...[cell].flat().filter((one) => one !== null))));
  return element('table', {}, element('thead', {}, row(heads, 'th')), element('tbody', {}, ...rows.map((cells) => row(cells, 'td'))));
}

/** A line to paste into a shell. */
function curl(method, path, operation) {
  const address = `${location.origin}${path.replace(/\{(\w+)\}/g, '$$$1')}`;
  const words = ['curl'];
  const streams = Object.values(operation.responses).some((response) => response.content?.['text/event-stream']);
  if (streams) words.push('-N');
  if (method !== 'get') words.push('-X', method.toUpperCase());
  if (operation.security) words.push('-H', '"Authorization: Bearer $token"');
  const [type] = Object.keys(operation.requestBody?.content ?? {});
  if (type) words.push('-H', `'Content-Type: ${type}'`, '--data', type === 'application/json' ? `'{…}'` : '@file');
  words.push(`"${address}"`);
  return words.join(' ');
}

function show(method, path, operation) {
  const section = element('details', { class: 'operation', id: operation.operationId });
  section.append(element(
    'summary', {}, element('span', { class: 'method', 'data-method': method }, method.toUpperCase()), code(path),
    element('span', { class: 'what' }, ...spans(operation.summary ?? '')),
  ));
  const content = element('div', {}, ...paragraphs(operation.description));
  if (operation.parameters?.length) {
    content.append(element('h3', {}, 'Parameters'), table(['Name', 'What'], operation.parameters.map((one) => [
      [code(one.name), element('span', { class: 'key' }, ` ${one.in}${one.required ? '' : ', optional'}`)],
      [...inline(one.schema), ...paragraphs(one.description)],
    ])));
  }
  for (const [type, { schema }] of Object.entries(operation.requestBody?.content ?? {})) {
    content.append(element('h3', {}, `Body${operation.requestBody.required ? '' : ' (optional)'}`), element('p', {}, code(type), ': ', ...inline(schema)));
  }
  content.append(element('h3', {}, 'Answers'), table(['Status', 'What'], Object.entries(operation.responses).map(([status, response]) => [
    [code(status)],
    [
      ...paragraphs(response.description),
      ...Object.entries(response.content ?? {}).map(([type, { schema }]) => element('p', {}, code(type), ': ', ...inline(schema))),
      ...Object.entries(response.headers ?? {}).map(([name, header]) => element('p', {}, code(name), ': ', header.description ?? '')),
    ],
  ])));
  content.append(element('h3', {}, 'With curl'), element('pre', {}, curl(method, path, operation)));
  section.append(content);
  return section;
}

function render(api) {
  document.getElementById('title').textContent = `${api.info.title} ${api.info.version}`;
  document.getElementById('status').replaceChildren('For programs: ', element('a', { href: '/openapi.json' }, '/openapi.json'), ` (OpenAPI ${api.openapi}).`);
  document.getElementById('about').replaceChildren(...paragraphs(api.info.description));
  const byTag = new Map();
  for (const [path, item] of Object.entries(api.paths)) {
    for (const method of METHODS.filter((one) => item[one])) {
      const tag = item[method].tags?.[0] ?? 'other';
      if (!byTag.has(tag)) byTag.set(tag, []);
      byTag.get(tag).push([method, path, item[method]]);
    }
  }
  const contents = element('ul');
  const operations = document.getElementById('operations');
  const rank = ([tag]) => (FIRST.includes(tag) ? FIRST.indexOf(tag) : FIRST.length);
  for (const [tag, all] of [...byTag].sort((one, other) => rank(one) - rank(other))) {
    operations.append(element('section', {}, element('h2', {}, tag), ...all.map((one) => show(...one))));
    contents.append(...all.map(([method, , one]) => element(
      'li', {}, element('a', { href: `#${one.operationId}` }, ...spans(one.summary ?? one.operationId)),
      element('span', { class: 'key' }, ` ${method.toUpperCase()}`),
    )));
  }
  document.getElementById('contents').replaceChildren(contents);
  const schemas = document.getElementById('schemas');
  for (const [name, schema] of Object.entries(api.components?.schemas ?? {})) {
    schemas.append(element(
      'details', { class: 'schema', id: `schema-${name}` }, element('summary', {}, code(name)),
      element('div', {}, ...paragraphs(schema.description), ...body(schema).filter((one) => one !== null)),
    ));
  }
  schemas.hidden = false;
  reveal();
}

/** Opens what the address names. */
function reveal() {
  const named = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!named) return;
  named.open = true;
  named.scrollIntoView();
}

addEventListener('hashchange', reveal);
try {
  render(await request('GET', '/openapi.json'));
} catch (error) {
  document.getElementById('status').textContent = error.message;
}
