from predict import predict
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route


async def ping(request):
    return Response()


async def invocations(request):
    return Response(predict(await request.body(), request.headers["content-type"]))


app = Starlette(routes=[Route("/ping", ping), Route("/invocations", invocations, methods=["POST"])])
