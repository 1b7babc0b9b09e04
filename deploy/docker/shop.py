"""The app that the image runs: put yours in its place."""

from headrace import Headrace

app = Headrace()


@app.task(queue="mail")
async def send_mail(to: str) -> str:
    """Pretend to send a mail."""
    return f"sent to {to}"
