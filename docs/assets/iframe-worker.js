/* The search of the site runs in a worker, and a browser starts none for a page that was opened as a file. For such a page
   alone this puts a hidden frame in its place, which takes and gives messages as a worker does.

   The theme would load such a script from another host; that it stands here keeps the site complete. It offers what the
   theme's search needs of a worker: postMessage, onmessage, onerror, addEventListener, terminate, importScripts.
   Source of the idea: M. Donath, iframe-worker, https://github.com/squidfunk/iframe-worker (MIT). */
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.onmessage = this.onerror = null;
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.appendChild(this.frame);
      const inside = this.inside = this.frame.contentWindow;
      inside.postMessage = (data) => this.tell(new MessageEvent("message", { data }));
      inside.importScripts = (...urls) =>
        urls.reduce((before, each) => before.then(() => this.load(each)), Promise.resolve());
      this.ready = this.load(url);
      this.ready.catch(() => this.tell(new ErrorEvent("error", { message: `${url} was not loaded` })));
    }

    load(url) {
      return new Promise((resolve, reject) => {
        const script = this.inside.document.createElement("script");
        script.src = url;
        script.onload = resolve;
        script.onerror = reject;
        this.inside.document.body.appendChild(script);
      });
    }

    tell(event) {
      const handler = event.type === "error" ? this.onerror : this.onmessage;
      if (handler) handler.call(this, event);
      this.dispatchEvent(event);
    }

    postMessage(data) {
      const copy = structuredClone(data);
      this.ready.then(() => this.inside.dispatchEvent(new MessageEvent("message", { data: copy })), () => {});
    }

    terminate() {
      this.frame.remove();
    }
  };
}
