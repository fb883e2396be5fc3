// The page's side of the worker that computes.

class Engine {
  /** `model` is the data of the networks, `weights` their base64. */
  constructor(model, weights) {
    const code = document.getElementById("worker-code").textContent;
    const url = URL.createObjectURL(new Blob([code], {type: "text/javascript"}));
    this.worker = new Worker(url);
    this.waiting = new Map();
    this.next = 0;
    this.busy = new Map(); // what `latest` has under way, by channel
    this.worker.onmessage = ({data}) => {
      const asked = this.waiting.get(data.id);
      if (data.row !== undefined) return asked?.onRow(data.row, data.values);
      this.waiting.delete(data.id);
      asked?.resolve(data);
    };
    this.failed = new Promise((_, reject) => (this.worker.onerror = (event) => reject(new Error(event.message))));
    this.ready = this.ask({task: "start", model, weights});
  }

  ask(message, onRow) {
    const id = this.next++;
    this.worker.postMessage({...message, id});
    return new Promise((resolve) => this.waiting.set(id, {resolve, onRow}));
  }

  /** The outputs of a network. */
  async run(network, inputs) {
    return (await this.ask({task: "run", network, inputs})).outputs;
  }

  /**
   * Calls `show` with the outputs for the newest inputs. While one computation of a channel is under way, only the
   * newest request for it waits: a fast pointer does not queue up pictures of where it has been.
   */
  latest(channel, network, inputs, show) {
    const job = this.busy.get(channel);
    if (job) {
      job.pending = [network, inputs, show];
      return;
    }
    const started = {pending: null};
    this.busy.set(channel, started);
    this.run(network, inputs).then((outputs) => {
      this.busy.delete(channel);
      show(outputs);
      if (started.pending) this.latest(channel, ...started.pending);
    });
  }

  get idle() {
    return this.busy.size === 0;
  }
}
