// How text becomes ids and ids text: bytes here, tokenizer.json through @huggingface/tokenizers.

import { BundleError } from "./bundle.mjs";

/**
 * Return the tokenizer of a bundle.
 *
 * library: the namespace of @huggingface/tokenizers, where the bundle holds a tokenizer.json.
 */
export async function openTokenizer(bundle, library) {
  const stated = bundle.manifest.tokenizer;
  if (!stated) throw new BundleError("the bundle has no tokenizer: the model takes no text", "pass ids: model.run(...)");
  if (stated.kind === "bytes") return new ByteTokenizer(stated);
  if (stated.kind !== "tokenizers") throw new BundleError(`the tokenizer is of the kind ${stated.kind}, this loader reads bytes and tokenizers`);
  if (!library?.Tokenizer) {
    throw new BundleError("the model's tokenizer needs @huggingface/tokenizers",
      "npm install @huggingface/tokenizers, then load(ort, base, { tokenizers: await import('@huggingface/tokenizers') })");
  }
  const content = JSON.parse(new TextDecoder().decode(await bundle.bytes(stated.file)));
  return new JsonTokenizer(stated, new library.Tokenizer(content, {}));
}

/** An id is a byte of UTF-8. */
class ByteTokenizer {
  constructor(stated) {
    this.stated = stated;
  }

  encode(text) {
    return withSeparator([...new TextEncoder().encode(text)], this.stated);
  }

  decode(ids) {
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(ids.filter((id) => id < 256)));
  }
}

class JsonTokenizer {
  constructor(stated, tokenizer) {
    this.stated = stated;
    this._tokenizer = tokenizer;
  }

  encode(text) {
    const { ids } = this._tokenizer.encode(text, { add_special_tokens: this.stated.around ?? false });
    return withSeparator(Array.from(ids, Number), this.stated);
  }

  decode(ids) {
    return this._tokenizer.decode(ids, { skip_special_tokens: false, clean_up_tokenization_spaces: false });
  }
}

function withSeparator(ids, { separator }) {
  return separator === null || separator === undefined ? ids : [...ids, separator];
}
